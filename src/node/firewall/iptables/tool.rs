//! The programs of iptables, each run for one look or one change, and never for long.

use std::env;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

use super::rules::{Family, Table};

/// The two programs of one family and variant.
#[derive(Clone, Debug)]
pub(crate) struct Tools {
    /// Their family.
    pub(crate) family: Family,
    save: PathBuf,
    restore: PathBuf,
}

/// Why a program did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Somebody else holds the xtables lock.
    Locked,
    /// It was ended after [`LONGEST`].
    Slow,
    /// Its own words, or why it could not be started.
    Refused(String),
}

/// A child that takes longer is killed. A restore that waited for the lock has a second left for its work.
pub(crate) const LONGEST: Duration = Duration::from_secs(3);

/// How long the lock is waited for, in seconds.
pub(crate) const LOCK_WAIT: u8 = 2;

/// Where the programs are if PATH does not say: the PATH of a service or a container is often short.
const USUAL: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/local/sbin"];

/// Lines kept of one look at a table; ours are a few for each address.
const MOST_LINES: usize = 10_000;

/// Octets kept of what a program complains about.
const LONGEST_COMPLAINT: u64 = 4096;

impl Tools {
    /// The programs called e.g. `iptables-save`, or `iptables-legacy-save` with the variant `-legacy`.
    ///
    /// # Errors
    /// The name of the one that was not found.
    pub(crate) fn find(family: Family, variant: &str) -> Result<Self, String> {
        let find = |end: &str| {
            let name = format!("{}{variant}-{end}", family.word());
            find(&name).ok_or(name)
        };
        Ok(Self::of(family, find("save")?, find("restore")?))
    }

    /// The programs at these paths.
    pub(crate) fn of(family: Family, save: PathBuf, restore: PathBuf) -> Self {
        Self { family, save, restore }
    }

    /// Where the program that changes tables is.
    pub(crate) fn restore_path(&self) -> &Path {
        &self.restore
    }

    /// What it calls itself, e.g. `iptables-restore v1.8.9 (nf_tables)`.
    pub(crate) async fn version(&self) -> Result<String, Failure> {
        let lines = run(&self.restore, &["--version"], "", &|_| true).await?;
        Ok(lines.into_iter().next().unwrap_or_default())
    }

    /// The lines of a table that `wanted` says yes to.
    pub(crate) async fn save(
        &self,
        table: Table,
        wanted: &(dyn Fn(&str) -> bool + Sync),
    ) -> Result<Vec<String>, Failure> {
        run(&self.save, &["-t", table.word()], "", wanted).await
    }

    /// Makes the changes of `text`: all of a table or none.
    pub(crate) async fn restore(&self, text: &str, lock_wait: u8) -> Result<(), Failure> {
        let wait = lock_wait.to_string();
        run(&self.restore, &["--noflush", "-w", &wait], text, &|_| false).await.map(drop)
    }
}

/// The first executable file of that name.
fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let usual = USUAL.iter().map(PathBuf::from);
    env::split_paths(&path)
        .filter(|directory| directory.is_absolute())
        .chain(usual)
        .map(|directory| directory.join(name))
        .find(|file| {
            file.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
        })
}

/// Runs a program to its end, which comes after [`LONGEST`] at the latest, and returns the wanted lines of its output.
async fn run(
    program: &Path,
    arguments: &[&str],
    input: &str,
    wanted: &(dyn Fn(&str) -> bool + Sync),
) -> Result<Vec<String>, Failure> {
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    match tokio::time::timeout(LONGEST, talk(program, arguments, input, wanted)).await {
        // The child ends with the future that held it.
        Err(_) => Err(Failure::Slow),
        Ok(Err(error)) => Err(Failure::Refused(format!("{name} cannot be run: {error}"))),
        Ok(Ok((true, lines, _))) => Ok(lines),
        Ok(Ok((false, _, complaint))) => Err(judge(&name, &complaint)),
    }
}

async fn talk(
    program: &Path,
    arguments: &[&str],
    input: &str,
    wanted: &(dyn Fn(&str) -> bool + Sync),
) -> std::io::Result<(bool, Vec<String>, String)> {
    let mut child = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(mut stdin), Some(stdout), Some(stderr)) = pipes else {
        return Err(std::io::Error::other("no pipes"));
    };
    let feed = async {
        // A program that gave up before it read everything says why in its own words.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
    };
    let listen = async {
        let (mut lines, mut output) = (Vec::new(), BufReader::new(stdout).lines());
        while let Some(line) = output.next_line().await? {
            if lines.len() < MOST_LINES && wanted(&line) {
                lines.push(line);
            }
        }
        Ok::<_, std::io::Error>(lines)
    };
    let hear = async {
        let mut complaint = Vec::new();
        stderr.take(LONGEST_COMPLAINT).read_to_end(&mut complaint).await?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&complaint).into_owned())
    };
    let ((), lines, complaint) = tokio::join!(feed, listen, hear);
    Ok((child.wait().await?.success(), lines?, complaint?))
}

/// The exit code for a held lock (4) is also that of missing rights, so the words decide.
fn judge(name: &str, complaint: &str) -> Failure {
    if complaint.contains("holding the xtables lock") {
        return Failure::Locked;
    }
    let lines = complaint.lines().map(str::trim);
    let said = lines.filter(|line| !line.is_empty() && !line.starts_with("Try `") && !line.starts_with("# Warning"));
    let said: Vec<&str> = said.take(2).collect();
    Failure::Refused(format!("{name} says: {}", if said.is_empty() { "nothing".to_owned() } else { said.join("; ") }))
}
