/// Fails with both texts where the bytes differ.
#[track_caller]
pub fn check(got: &[u8], expected: &[u8]) {
    assert!(
        got == expected,
        "got `{}`, expected `{}`",
        got.escape_ascii(),
        expected.escape_ascii()
    );
}
