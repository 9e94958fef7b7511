//! `cargo xtask ebpf`: the BPF object from its source.
//!
//! The same source and toolchain give the same bytes wherever they are built: paths are remapped and
//! debug sections, which hold the rest, are stripped. What built the committed object stands beside it.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use object::build::elf::{Builder, SectionData};
use sha2::{Digest as _, Sha256};

const LINKER_VERSION: &str = "0.10.3";
/// The LLVM that this bpf-linker loads at run time.
const LLVM: &[&str] = &["libLLVM.so.22", "libLLVM-22"];
const DEBIAN_PACKAGES: &[&str] = &["rustc-web", "cargo-web", "rust-web-src"];
const TARGET: &str = "bpfel-unknown-none";
const BINARY: &str = "steering";

/// Builds the object and writes it to `snproxy-ebpf/prebuilt` with its record; with `check` it
/// compares instead.
pub(crate) fn run(check: bool) -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("xtask lies in the workspace")?;
    let toolchain = Toolchain::find_or_install(root)?;
    let object = strip(&build(root, &toolchain)?)?;
    let record = toolchain.record(&object)?;

    let prebuilt = root.join("snproxy-ebpf/prebuilt");
    let object_path = prebuilt.join(format!("{BINARY}.o"));
    let record_path = prebuilt.join(format!("{BINARY}.toolchain"));
    if check {
        let rebuilt = root.join("target/ebpf").join(format!("{BINARY}.o"));
        fs::write(&rebuilt, &object)?;
        let committed =
            fs::read(&object_path).with_context(|| format!("read {}", object_path.display()))?;
        let committed_record = fs::read_to_string(&record_path)
            .with_context(|| format!("read {}", record_path.display()))?;
        compare(&committed, &committed_record, &object, &record)
            .with_context(|| format!("rebuilt object: {}", rebuilt.display()))?;
        eprintln!(
            "{}: the committed object is this source",
            object_path.display()
        );
    } else {
        fs::create_dir_all(&prebuilt)?;
        fs::write(&object_path, &object)?;
        fs::write(&record_path, &record)?;
        eprint!("{}\n{record}", object_path.display());
    }
    Ok(())
}

/// Errors: the record is not of the committed object, or the bytes differ; which toolchain lines
/// differ is said first, since bytes of another toolchain prove nothing.
fn compare(
    committed: &[u8],
    committed_record: &str,
    rebuilt: &[u8],
    record: &str,
) -> anyhow::Result<()> {
    let recorded = field(committed_record, "sha256");
    ensure!(
        recorded == Some(&sha256(committed)),
        "the committed object is not the recorded one ({}); run `cargo xtask ebpf` and commit both",
        recorded.unwrap_or("no sha256")
    );
    if committed == rebuilt {
        return Ok(());
    }
    let mut differences = String::new();
    for key in ["rustc", "llvm", "bpf-linker"] {
        let (theirs, ours) = (field(committed_record, key), field(record, key));
        if theirs != ours {
            writeln!(
                differences,
                "  {key}: recorded {}, here {}",
                theirs.unwrap_or("nothing"),
                ours.unwrap_or("nothing")
            )?;
        }
    }
    ensure!(
        differences.is_empty(),
        "the toolchain differs, and so do the bytes, which says nothing about the source:\n{differences}"
    );
    anyhow::bail!(
        "the bytes differ under the recorded toolchain: committed {}, rebuilt {}; \
         run `cargo xtask ebpf` and commit the result",
        sha256(committed),
        sha256(rebuilt)
    );
}

/// What builds the object.
struct Toolchain {
    rustc: PathBuf,
    cargo: PathBuf,
    /// Folder with the standard library's source.
    source: PathBuf,
    linker: PathBuf,
    /// Folder with the LLVM that the linker loads.
    llvm: PathBuf,
}

impl Toolchain {
    fn find_or_install(root: &Path) -> anyhow::Result<Self> {
        let found = find_rust();
        if found.is_none() {
            install_rust()?;
        }
        let (rustc, cargo, source) = (found.or_else(find_rust))
            .context("packages are installed, but no rustc with its source")?;
        let sysroot = output(clean(&rustc).args(["--print", "sysroot"]))?;
        let llvm = find_llvm(Path::new(&sysroot)).context("no LLVM 22 for bpf-linker")?;
        let linker = match find_linker(root, &llvm) {
            Some(linker) => linker,
            None => install_linker(root)?,
        };
        Ok(Self {
            rustc,
            cargo,
            source,
            linker,
            llvm,
        })
    }

    /// Shape: lines `key = "value"`.
    fn record(&self, object: &[u8]) -> anyhow::Result<String> {
        let rustc = output(clean(&self.rustc).arg("-vV"))?;
        let llvm = rustc
            .lines()
            .find_map(|line| line.strip_prefix("LLVM version: "));
        Ok(format!(
            "rustc = \"{}\"\nllvm = \"{}\"\nbpf-linker = \"{}\"\nsha256 = \"{}\"\n",
            rustc.lines().next().unwrap_or("unknown"),
            llvm.unwrap_or("unknown"),
            linker_version(&self.linker, &self.llvm).unwrap_or_default(),
            sha256(object)
        ))
    }
}

/// Debian's packages, else a nightly with rust-src: rustc, cargo and the source of core.
fn find_rust() -> Option<(PathBuf, PathBuf, PathBuf)> {
    let rustup = |tool: &str| {
        output(Command::new("rustup").args(["which", "--toolchain", "nightly", tool]))
            .ok()
            .map(PathBuf::from)
    };
    let debian = (
        PathBuf::from("/usr/bin/rustc"),
        PathBuf::from("/usr/bin/cargo"),
    );
    [Some(debian), rustup("rustc").zip(rustup("cargo"))]
        .into_iter()
        .flatten()
        .find_map(|(rustc, cargo)| {
            let sysroot = output(clean(&rustc).args(["--print", "sysroot"])).ok()?;
            let source = Path::new(&sysroot).join("lib/rustlib/src/rust");
            (cargo.exists() && source.join("library/core").exists())
                .then_some((rustc, cargo, source))
        })
}

fn install_rust() -> anyhow::Result<()> {
    let apt = ["apt-get", "install", "--yes", "--no-install-recommends"];
    let is_root = output(Command::new("id").arg("-u"))? == "0";
    let words: Vec<&str> = (if is_root {
        &[][..]
    } else {
        &["sudo", "--non-interactive"]
    })
    .iter()
    .chain(&apt)
    .chain(DEBIAN_PACKAGES)
    .copied()
    .collect();
    eprintln!("{}", words.join(" "));
    // Lists that are there and old do as well: what counts is the installation.
    let update: Vec<&str> = words
        .iter()
        .copied()
        .take_while(|word| *word != "install")
        .collect();
    let _ = Command::new(update[0])
        .args(&update[1..])
        .arg("update")
        .status();
    let status = Command::new(words[0])
        .args(&words[1..])
        .env("DEBIAN_FRONTEND", "noninteractive")
        .status();
    ensure!(
        status.is_ok_and(|status| status.success()),
        "no rustc with its source: install Debian's {}, or a nightly with rust-src",
        DEBIAN_PACKAGES.join(", ")
    );
    Ok(())
}

fn find_llvm(sysroot: &Path) -> Option<PathBuf> {
    let multiarch = format!("{}-linux-gnu", env::consts::ARCH);
    [
        sysroot.join("lib").join(&multiarch),
        sysroot.join("lib"),
        Path::new("/usr/lib").join(multiarch),
        PathBuf::from("/usr/lib/llvm-22/lib"),
    ]
    .into_iter()
    .find(|folder| {
        fs::read_dir(folder).is_ok_and(|entries| {
            entries.flatten().any(|entry| {
                let name = entry.file_name();
                LLVM.iter()
                    .any(|prefix| name.to_string_lossy().starts_with(prefix))
            })
        })
    })
}

/// A linker of the right version: on PATH, or installed here before.
fn find_linker(root: &Path, llvm: &Path) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain([tools(root).join("bin")])
        .map(|folder| folder.join("bpf-linker"))
        .find(|linker| {
            linker_version(linker, llvm)
                .is_some_and(|version| version.split_whitespace().nth(1) == Some(LINKER_VERSION))
        })
}

fn install_linker(root: &Path) -> anyhow::Result<PathBuf> {
    // With the cargo that runs this task: it is a program of the host.
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let tools = tools(root);
    run_command(
        Command::new(cargo)
            .args([
                "install",
                "bpf-linker",
                "--locked",
                "--version",
                LINKER_VERSION,
            ])
            .arg("--root")
            .arg(&tools),
    )?;
    Ok(tools.join("bin/bpf-linker"))
}

fn tools(root: &Path) -> PathBuf {
    root.join("target/tools")
}

fn linker_version(linker: &Path, llvm: &Path) -> Option<String> {
    output(
        Command::new(linker)
            .arg("--version")
            .env("LD_LIBRARY_PATH", llvm),
    )
    .ok()
}

fn build(root: &Path, toolchain: &Toolchain) -> anyhow::Result<Vec<u8>> {
    let package = root.join("snproxy-ebpf");
    // Before the flags are made: they name the folders that it fills.
    run_command(
        clean(&toolchain.cargo)
            .current_dir(&package)
            .env("RUSTC", &toolchain.rustc)
            .args(["fetch", "--locked"]),
    )?;
    let target = root.join("target/ebpf");
    run_command(
        clean(&toolchain.cargo)
            .current_dir(&package)
            .env("RUSTC", &toolchain.rustc)
            .env("RUSTC_BOOTSTRAP", "1")
            .env("LD_LIBRARY_PATH", &toolchain.llvm)
            .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &toolchain.linker)
            .env("CARGO_ENCODED_RUSTFLAGS", flags(root, toolchain)?)
            .args(["build", "--release", "--locked", "-Z", "build-std=core"])
            .args(["--target", TARGET, "--target-dir"])
            .arg(&target),
    )?;
    let object = target.join(TARGET).join("release").join(BINARY);
    fs::read(&object).with_context(|| format!("read {}", object.display()))
}

/// Flags of rustc, joined as `CARGO_ENCODED_RUSTFLAGS` wants them. No path of this machine stays.
fn flags(root: &Path, toolchain: &Toolchain) -> anyhow::Result<OsString> {
    let mut flags: Vec<OsString> = ["-C", "link-arg=--btf", "-C", "debuginfo=2"]
        .map(OsString::from)
        .into();
    let mut remap = |from: &Path, to: &str| {
        let mut flag = OsString::from("--remap-path-prefix=");
        flag.push(from);
        flag.push("=");
        flag.push(to);
        flags.push(flag);
    };
    remap(root, "/snproxy");
    remap(&toolchain.source, "/rust");
    // Debian's is a link.
    remap(
        &fs::canonicalize(toolchain.source.join("library"))?,
        "/rust/library",
    );
    let sources = cargo_home().context("no HOME")?.join("registry/src");
    for registry in fs::read_dir(&sources).with_context(|| format!("read {}", sources.display()))? {
        remap(&registry?.path(), "/crates");
    }
    Ok(flags.join(OsStr::new("\u{1f}")))
}

fn cargo_home() -> Option<PathBuf> {
    match env::var_os("CARGO_HOME") {
        Some(home) => Some(home.into()),
        None => Some(Path::new(&env::var_os("HOME")?).join(".cargo")),
    }
}

/// Drops the debug sections and keeps BTF.
fn strip(object: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut builder = Builder::read(object)?;
    for section in &mut builder.sections {
        let name = section.name.as_slice();
        section.delete = name.starts_with(b".debug_") || name.starts_with(b".rel.debug_");
    }
    builder.delete_orphans();
    // LLVM keeps the names of sections among those of symbols; this writer wants them apart.
    let names = builder.sections.add();
    names.name = ".shstrtab".into();
    names.sh_type = object::elf::SHT_STRTAB;
    names.data = SectionData::SectionString;
    let mut stripped = Vec::new();
    builder.write(&mut stripped)?;
    Ok(stripped)
}

/// A command that inherits nothing of the cargo, or of the user's flags, that run this task.
fn clean(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let keep = [
            "CARGO_HOME",
            "CARGO_HTTP_",
            "CARGO_NET_",
            "CARGO_REGISTRIES_",
        ]
        .iter()
        .any(|kept| text.starts_with(kept));
        if !keep && (text.starts_with("CARGO") || text.starts_with("RUST")) {
            command.env_remove(&name);
        }
    }
    command
}

fn run_command(command: &mut Command) -> anyhow::Result<()> {
    let status = command
        .status()
        .with_context(|| format!("run {}", command.get_program().display()))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}

/// Standard output without the last line end.
fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command
        .output()
        .with_context(|| format!("run {}", command.get_program().display()))?;
    ensure!(output.status.success(), "{command:?}: {}", output.status);
    Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
}

fn sha256(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in Sha256::digest(bytes) {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// The value of a line `key = "value"`.
fn field<'a>(record: &'a str, key: &str) -> Option<&'a str> {
    record.lines().find_map(|line| {
        let (name, value) = line.split_once(" = ")?;
        (name == key).then(|| value.trim_matches('"'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(rustc: &str, object: &[u8]) -> String {
        format!("rustc = \"{rustc}\"\nsha256 = \"{}\"\n", sha256(object))
    }

    #[test]
    fn a_difference_names_the_toolchain_or_the_bytes() {
        let (old, new) = (&b"old"[..], &b"new"[..]);
        let same = compare(old, &record("1", old), old, &record("2", old));
        assert!(same.is_ok());

        let toolchain = compare(old, &record("1", old), new, &record("2", new)).unwrap_err();
        assert!(toolchain.to_string().contains("rustc: recorded 1, here 2"));

        let bytes = compare(old, &record("1", old), new, &record("1", new)).unwrap_err();
        assert!(
            bytes
                .to_string()
                .contains("bytes differ under the recorded toolchain")
        );

        let record = compare(old, &record("1", new), old, &record("1", old)).unwrap_err();
        assert!(record.to_string().contains("not the recorded one"));
    }
}
