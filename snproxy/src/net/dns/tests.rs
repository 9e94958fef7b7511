//! The resolver against name servers that answer by a script.

mod cases;
mod files;
mod scripted;
