//! Which kernel runs here.

/// The release, as `uname -r` prints it.
pub fn release() -> String {
    rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned()
}

/// Whether the running kernel is this version or newer, going by its release. Distributions carry
/// features back to older ones: ask only to explain a failure, or where a wrong no does no harm.
pub fn at_least(major: u32, minor: u32) -> bool {
    version(&release()) >= Some((major, minor))
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|byte: char| !byte.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_of_distributions_compare_as_numbers() {
        assert_eq!(version("6.18.44-fc-v657"), Some((6, 18)));
        assert_eq!(version("5.4.0-150-generic"), Some((5, 4)));
        assert_eq!(version("6.1-rc3"), Some((6, 1)));
        assert!(version("5.10.0") > version("5.9.16"));
        assert_eq!(version("unknown"), None);
        assert!(at_least(2, 6));
        assert!(!at_least(1000, 0));
    }
}
