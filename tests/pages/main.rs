//! Writes what a package has beside the program, from the one definition of its flags:
//! `cargo run --example pages -- target/dist-docs` makes
//!
//! ```text
//! target/dist-docs/man/dnslet.1                -> /usr/share/man/man1/dnslet.1.gz
//! target/dist-docs/completions/dnslet.bash     -> /usr/share/bash-completion/completions/dnslet
//! target/dist-docs/completions/_dnslet         -> /usr/share/zsh/vendor-completions/_dnslet
//! target/dist-docs/completions/dnslet.fish     -> /usr/share/fish/vendor_completions.d/dnslet.fish
//! ```

mod completions;
mod man;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use clap_complete::Shell;

use dnslet::cli;

fn main() -> Result<()> {
    let directory = std::env::args().nth(1).context("say where to: cargo run --example pages -- DIRECTORY")?;
    let command = cli::command();
    write(Path::new(&directory).join("man/dnslet.1"), &man::page(&command)?)?;
    for (name, shell) in [("dnslet.bash", Shell::Bash), ("_dnslet", Shell::Zsh), ("dnslet.fish", Shell::Fish)] {
        let path = Path::new(&directory).join("completions").join(name);
        write(path, &completions::script(&command, shell))?;
    }
    Ok(())
}

fn write(path: impl AsRef<Path>, text: &str) -> Result<()> {
    let path = path.as_ref();
    fs::create_dir_all(path.parent().context("a file is in a directory")?)?;
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
