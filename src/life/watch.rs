//! File changes, by inotify on directories.
//!
//! The directory is watched, not the file: editors and the kubelet replace files by renaming. A ConfigMap file is a
//! symbolic link through `..data`, itself a link that is swapped; `/etc/resolv.conf` often points into `/run`. So every
//! directory in which a link or the file itself is looked up on the way is watched. Events say only "look again": what
//! changed is decided by reading the files.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::net::unix::pipe;

/// Changes come in groups (truncate, write, close; or several links); one that was quiet for this long is over.
const SETTLE: Duration = Duration::from_millis(100);
/// A file written without pause is looked at all the same, after this many times `SETTLE`.
const LONGEST_GROUP: u32 = 5;
/// As many symbolic links in one path as the kernel follows.
const MAX_LINKS: usize = 40;

/// A set of watched files.
#[derive(Debug)]
pub struct Watch {
    inotify: Inotify,
    events: pipe::Receiver,
    files: BTreeSet<PathBuf>,
    /// Events were taken and not yet reported: a wait that was cancelled loses none.
    pending: bool,
}

impl Watch {
    /// Starts with no files. Must be called inside a tokio runtime. Fails when the user's inotify instances are used up.
    pub fn new() -> io::Result<Watch> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        // An inotify descriptor is read like a pipe; which event came does not matter here, so bytes are enough.
        let descriptor: OwnedFd = std::os::fd::AsFd::as_fd(&inotify).try_clone_to_owned()?;
        let events = pipe::Receiver::from_owned_fd_unchecked(descriptor)?;
        Ok(Watch { inotify, events, files: BTreeSet::new(), pending: false })
    }

    /// Watches these files and no others. They need not exist. A directory may be given too: then its entries count.
    pub fn set(&mut self, files: BTreeSet<PathBuf>) {
        self.files = files;
        self.follow();
    }

    /// Watches these files from now on, besides those already watched.
    pub fn add(&mut self, files: impl IntoIterator<Item = PathBuf>) {
        self.files.extend(files);
        self.follow();
    }

    /// Waits until something near a watched file changed and then stayed quiet for a moment. Links that were moved are
    /// followed to their new target. Safe to cancel.
    pub async fn changed(&mut self) {
        if !self.pending {
            self.drain().await;
            self.pending = true;
        }
        for _ in 0..LONGEST_GROUP {
            // Slept through, not woken by each event: a busy directory costs a few wakeups a second.
            tokio::time::sleep(SETTLE).await;
            if !self.take() {
                break;
            }
        }
        self.pending = false;
        self.follow();
    }

    /// Waits for events and takes all that are there.
    async fn drain(&self) {
        loop {
            if self.events.readable().await.is_err() {
                // The runtime is going down; nobody is left to be told.
                return std::future::pending().await;
            }
            if self.take() {
                return;
            }
        }
    }

    /// Takes the events that are there, and tells whether there were any.
    fn take(&self) -> bool {
        let mut buffer = [0_u8; 4096];
        let mut taken = false;
        while self.events.try_read(&mut buffer).is_ok_and(|bytes| bytes > 0) {
            taken = true;
        }
        taken
    }

    /// Adding what is watched already changes nothing; what was replaced gets a new watch. A path that cannot be watched
    /// is left to the slow poll.
    fn follow(&self) {
        let content = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CLOSE_WRITE;
        // The writes to files nobody asked for are not of interest, only that one may be complete.
        let entries = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ONLYDIR;
        for file in &self.files {
            for directory in directories(file) {
                let _ = self.inotify.add_watch(&directory, entries);
            }
            // A file that is mounted by itself, as containers have it, is written where no directory here sees it. A
            // directory has its watch already, which this would replace.
            if !file.is_dir() {
                let _ = self.inotify.add_watch(file, content);
            }
        }
    }
}

/// Every directory whose change can make `path` another file: those that hold a link on the way, and the one that holds
/// the end; if that does not exist yet, the nearest that does.
fn directories(path: &Path) -> BTreeSet<PathBuf> {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut todo: VecDeque<OsString> = names(&absolute).collect();
    let (mut at, mut links, mut found) = (PathBuf::from("/"), 0, BTreeSet::new());
    while let Some(name) = todo.pop_front() {
        if name == ".." {
            at.pop();
            continue;
        }
        let here = at.join(&name);
        match std::fs::read_link(&here) {
            Ok(target) if links < MAX_LINKS => {
                links += 1;
                found.insert(at.clone());
                if target.is_absolute() {
                    at = PathBuf::from("/");
                }
                for name in names(&target).collect::<Vec<_>>().into_iter().rev() {
                    todo.push_front(name);
                }
            }
            _ if here.is_dir() => at = here,
            // The file itself, or the first part that is missing.
            _ => break,
        }
    }
    found.insert(at);
    found
}

fn names(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::sys::clock;

    /// A directory of its own, removed at the end.
    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Place {
            let path = std::env::temp_dir().join(format!("dnslet-watch-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(&path).unwrap();
            Place(path.canonicalize().unwrap())
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn run(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
    }

    #[test]
    fn links_are_followed_through_every_directory() {
        let place = Place::new("links");
        let (etc, run) = (place.0.join("etc"), place.0.join("run/resolve"));
        fs::create_dir_all(&etc).unwrap();
        fs::create_dir_all(&run).unwrap();
        fs::write(run.join("stub.conf"), "").unwrap();
        symlink("../run/resolve/stub.conf", etc.join("resolv.conf")).unwrap();
        assert_eq!(directories(&etc.join("resolv.conf")), BTreeSet::from([etc.clone(), run]));
        assert_eq!(directories(&etc.join("missing/deep/file")), BTreeSet::from([etc.clone()]));
        symlink("loop", etc.join("loop")).unwrap();
        assert_eq!(directories(&etc.join("loop")), BTreeSet::from([etc]));
    }

    #[test]
    fn writes_renames_and_files_that_appear_are_seen() {
        let place = Place::new("files");
        let file = place.0.join("resolv.conf");
        run(async {
            let mut watch = Watch::new().unwrap();
            watch.add([file.clone()]);
            fs::write(&file, "a").unwrap();
            watch.changed().await;
            fs::write(place.0.join("new"), "b").unwrap();
            watch.changed().await;
            fs::rename(place.0.join("new"), &file).unwrap();
            watch.changed().await;
        });
    }

    #[test]
    fn a_directory_is_watched_for_its_entries_but_not_for_unfinished_writes() {
        let place = Place::new("entries");
        let (watched, unfinished) = (place.0.join("watched"), place.0.join("watched/unfinished"));
        fs::create_dir(&watched).unwrap();
        let mut open = fs::File::create(&unfinished).unwrap();
        run(async {
            let mut watch = Watch::new().unwrap();
            watch.add([watched.clone()]);
            open.write_all(b"a").unwrap();
            assert!(!watch.take());
            fs::write(place.0.join("new"), "b").unwrap();
            fs::rename(place.0.join("new"), watched.join("new")).unwrap();
            watch.changed().await;
        });
    }

    #[test]
    fn a_file_written_without_pause_is_reported_but_not_at_once() {
        let place = Place::new("steady");
        let file = place.0.join("Corefile");
        run(async {
            let mut watch = Watch::new().unwrap();
            watch.add([file.clone()]);
            let writing = async {
                loop {
                    fs::write(&file, "a").unwrap();
                    tokio::task::yield_now().await;
                }
            };
            let start = clock::now();
            tokio::select! {
                () = watch.changed() => {}
                () = writing => {}
            }
            assert!(clock::now() - start >= SETTLE * LONGEST_GROUP);
        });
    }

    #[test]
    fn a_config_map_swap_is_seen_each_time() {
        let place = Place::new("configmap");
        let swap = |version: &str| {
            fs::create_dir(place.0.join(version)).unwrap();
            fs::write(place.0.join(version).join("Corefile"), version).unwrap();
            symlink(version, place.0.join("..data_tmp")).unwrap();
            fs::rename(place.0.join("..data_tmp"), place.0.join("..data")).unwrap();
        };
        swap("..1");
        symlink("..data/Corefile", place.0.join("Corefile")).unwrap();
        run(async {
            let mut watch = Watch::new().unwrap();
            watch.add([place.0.join("Corefile")]);
            for version in ["..2", "..3"] {
                swap(version);
                watch.changed().await;
                assert_eq!(fs::read_to_string(place.0.join("Corefile")).unwrap(), version);
            }
        });
    }
}
