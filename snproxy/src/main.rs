use std::process::ExitCode;

fn main() -> ExitCode {
    snproxy::cli::main()
}
