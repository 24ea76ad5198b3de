//! A control group with a memory limit, of either version.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::time;

/// A group of its own below the one that this process is in; removed with this value, when its processes have ended.
pub struct Cgroup {
    path: PathBuf,
    files: &'static Files,
}

/// What the files of a version are called.
struct Files {
    limit: &'static str,
    peak: &'static str,
    /// Holds a line `oom_kill N`.
    kills: &'static str,
    /// Where what TCP holds for sockets is counted apart: its limit, without which it is not counted, and its peak.
    sockets: Option<(&'static str, &'static str)>,
}

const V1: Files = Files {
    limit: "memory.limit_in_bytes",
    peak: "memory.max_usage_in_bytes",
    kills: "memory.oom_control",
    sockets: Some(("memory.kmem.tcp.limit_in_bytes", "memory.kmem.tcp.max_usage_in_bytes")),
};
const V2: Files = Files { limit: "memory.max", peak: "memory.peak", kills: "memory.events", sockets: None };

impl Cgroup {
    /// A group whose processes together may use so many octets, kernel memory of their own included.
    pub fn limited(octets: u64) -> Cgroup {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("dnslet-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::SeqCst));
        let group = places().into_iter().find_map(|(parent, files)| {
            let path = parent.join(&name);
            fs::create_dir(&path).ok()?;
            let group = Cgroup { path, files };
            // Where the parent does not hand the memory controller down, the file is not there.
            fs::write(group.path.join(files.limit), octets.to_string()).ok()?;
            if let Some((limit, _)) = files.sockets {
                fs::write(group.path.join(limit), octets.to_string()).ok()?;
            }
            Some(group)
        });
        group.expect(
            "a memory control group: run this as root, or as a user with a delegated one, \
             as in `systemd-run --user --scope -p Delegate=yes cargo test` (/sys/fs/cgroup must be mounted for writing)",
        )
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The most octets that were in use at any time.
    pub fn peak(&self) -> u64 {
        self.read(self.files.peak).trim().parse().expect("a number")
    }

    /// The most octets that TCP held for sockets, where they are not among those of `peak`.
    pub fn peak_of_sockets(&self) -> u64 {
        self.files.sockets.map_or(0, |(_, peak)| self.read(peak).trim().parse().expect("a number"))
    }

    /// How many processes the kernel has ended here for lack of memory.
    pub fn kills(&self) -> u64 {
        let text = self.read(self.files.kills);
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        line.expect("a kernel that counts (4.13 or later)").parse().expect("a number")
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.path.join(file)).unwrap_or_else(|error| panic!("{file} of a control group: {error}"))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let end = time::now() + time::PATIENCE;
        // Busy until the kernel has let go of the processes that were ended.
        while fs::remove_dir(&self.path).is_err() && self.path.exists() && time::now() < end {
            time::pass(std::time::Duration::from_millis(10));
        }
    }
}

/// Directories in which a group may be made, this process's own first, then up to the root.
fn places() -> Vec<(PathBuf, &'static Files)> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mut places = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (mount, files) = match controllers {
            "" => ("/sys/fs/cgroup", &V2),
            _ if controllers.split(',').any(|one| one == "memory") => ("/sys/fs/cgroup/memory", &V1),
            _ => continue,
        };
        let own = Path::new(path.trim_start_matches('/'));
        places.extend(own.ancestors().map(|part| (Path::new(mount).join(part), files)));
    }
    places
}
