//! The program: all of it is in the library.

#[global_allocator]
static ALLOCATOR: dnslet::sys::alloc::Whole = dnslet::sys::alloc::Whole;

fn main() -> std::process::ExitCode {
    dnslet::cli::main()
}
