//! The `agent-runner` binary: everything is in the library.

fn main() {
    let args = std::env::args_os().skip(1).collect();
    std::process::exit(agents_runtime::runner::main(args));
}
