//! Files below `/etc`, changed so that the old or the new one is there whole at any moment.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;

/// What is put into a file of ours, for everybody to read.
const MODE: u32 = 0o644;

/// Held by the one that changes something: an operator, or the service that starts.
const LOCK: &str = "/run/dnslet-host.lock";

/// Where `/` is.
pub(super) struct Root(PathBuf);

impl Root {
    /// Of this machine.
    pub(super) fn real() -> Root {
        Root(PathBuf::from("/"))
    }

    /// Another directory.
    #[cfg(test)]
    pub(super) fn at(directory: &Path) -> Root {
        Root(directory.to_owned())
    }

    /// Waits until nobody else changes anything; others wait until the file is dropped.
    pub(super) fn lock(&self) -> Result<File, String> {
        let open = || {
            let file = OpenOptions::new().append(true).create(true).mode(0o600).open(self.path(LOCK))?;
            file.lock()?;
            Ok(file)
        };
        open().map_err(|error: io::Error| format!("nothing was changed: {LOCK}: {error}"))
    }

    fn path(&self, file: &str) -> PathBuf {
        self.0.join(file.trim_start_matches('/'))
    }

    /// The text behind a path, links followed; `None` if it cannot be read.
    pub(super) fn text(&self, file: &str) -> Option<String> {
        fs::read(self.path(file)).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Where a symbolic link points, as written.
    pub(super) fn link(&self, file: &str) -> Option<PathBuf> {
        fs::read_link(self.path(file)).ok()
    }

    /// Whether anything is there, a link that leads nowhere included.
    pub(super) fn exists(&self, file: &str) -> bool {
        fs::symlink_metadata(self.path(file)).is_ok()
    }

    /// Whether two names are of one file.
    pub(super) fn same(&self, one: &str, other: &str) -> bool {
        let number = |file| fs::symlink_metadata(self.path(file)).map(|of| (of.dev(), of.ino()));
        matches!((number(one), number(other)), (Ok(one), Ok(other)) if one == other)
    }

    /// Puts a file with this text in the place of what is there, if anything is. Directories on the way are made.
    pub(super) fn put(&self, file: &str, text: &str) -> Result<(), String> {
        let path = self.path(file);
        let beside = path.with_file_name(format!(".{}.dnslet", name(&path)));
        let written = || {
            fs::create_dir_all(directory(&path))?;
            remove(&beside)?;
            let mut new = OpenOptions::new().write(true).create_new(true).mode(MODE).open(&beside)?;
            new.set_permissions(fs::Permissions::from_mode(MODE))?;
            new.write_all(text.as_bytes())?;
            new.sync_all()?;
            fs::rename(&beside, &path)?;
            sync(&path)
        };
        written().map_err(|error| {
            let _ = remove(&beside);
            refusal(file, &error)
        })
    }

    /// Gives the file, or the link, a second name: its bytes, mode and owner stay with it whatever takes the first.
    pub(super) fn keep(&self, file: &str, kept: &str) -> Result<(), String> {
        let (path, kept) = (self.path(file), self.path(kept));
        let linked = || {
            remove(&kept)?;
            fs::hard_link(&path, &kept)?;
            sync(&kept)
        };
        linked().map_err(|error| refusal(file, &error))
    }

    /// Brings the kept file back to its first name.
    pub(super) fn bring_back(&self, kept: &str, file: &str) -> Result<(), String> {
        let (path, kept) = (self.path(file), self.path(kept));
        fs::rename(&kept, &path).and_then(|()| sync(&path)).map_err(|error| refusal(file, &error))
    }

    /// Removes a file, if it is there.
    pub(super) fn remove(&self, file: &str) -> Result<(), String> {
        let path = self.path(file);
        remove(&path).and_then(|()| sync(&path)).map_err(|error| refusal(file, &error))
    }
}

fn directory(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

fn name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// A name is kept over a loss of power once its directory was written.
fn sync(path: &Path) -> io::Result<()> {
    File::open(directory(path))?.sync_all()
}

/// Why a file cannot be changed, and what to do.
fn refusal(file: &str, error: &io::Error) -> String {
    let why = match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EBUSY | Errno::EXDEV) => {
            "it is a mount of its own, as in containers: whoever starts the container says which servers it asks \
             (docker run --dns, systemd-nspawn --resolv-conf)"
        }
        Some(Errno::EPERM) => "it is immutable, for somebody wants it to stay as it is: chattr -i allows changes",
        Some(Errno::EROFS) => "it is on a read-only file system: make that writable, or change the image",
        _ => return format!("{file} cannot be changed: {error}"),
    };
    format!("{file} cannot be changed: {why}")
}
