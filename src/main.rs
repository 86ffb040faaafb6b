//! Entry point: parses the arguments, runs the command, prints an error, exits.

#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    grantd::cli::main()
}
