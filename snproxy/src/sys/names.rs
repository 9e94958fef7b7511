//! Which name services a static executable asks.

#![cfg_attr(
    all(target_env = "gnu", target_feature = "crt-static"),
    expect(unsafe_code, reason = "glibc has no safe way to say it")
)]

/// Has a static executable resolve names by /etc/hosts and DNS, whatever /etc/nsswitch.conf says: these are built in,
/// while any other would be a library of this host's, made for another libc than the one inside.
///
/// Call it before the first name is resolved.
pub fn ask_only_what_is_built_in() {
    #[cfg(all(target_env = "gnu", target_feature = "crt-static"))]
    {
        unsafe extern "C" {
            fn __nss_configure_lookup(
                database: *const libc::c_char,
                services: *const libc::c_char,
            ) -> libc::c_int;
        }
        // SAFETY: reads two strings, which end with NUL (glibc, nss/nss.h). It fails only for want of memory; then
        // names resolve as if it had not been called.
        unsafe { __nss_configure_lookup(c"hosts".as_ptr(), c"files dns".as_ptr()) };
    }
}
