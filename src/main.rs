fn main() -> std::process::ExitCode {
    dnslet::cli::main()
}
