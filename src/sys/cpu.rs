//! What the machine, or the cgroup this process runs in, lets it use.

use std::fs;
use std::thread;

/// A version 1 limit at or above this is the kernel's way to say there is none (the page counter's maximum).
const UNLIMITED: u64 = 1 << 62;

/// How many processors this process may keep busy: its affinity mask and its cgroup quota both count. At least 1.
pub fn count() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// The memory limit of this process's cgroup in bytes, version 2 or 1; `None` where nothing limits it.
///
/// The tightest limit on the way up to the root is the one that holds.
pub fn memory_limit() -> Option<u64> {
    memory_limit_from(&|path| fs::read_to_string(path).ok())
}

fn memory_limit_from(read: &dyn Fn(&str) -> Option<String>) -> Option<u64> {
    let groups = read("/proc/self/cgroup").unwrap_or_default();
    let unified = own_path(&groups, |controllers| controllers.is_empty());
    let memory = own_path(&groups, |controllers| controllers.split(',').any(|name| name == "memory"));
    let found = unified.into_iter().flat_map(|path| tightest(read, "/sys/fs/cgroup", path, "memory.max")).chain(
        memory.into_iter().flat_map(|path| tightest(read, "/sys/fs/cgroup/memory", path, "memory.limit_in_bytes")),
    );
    found.min()
}

/// The path in the line of `/proc/self/cgroup` (`id:controllers:path`) whose controllers are the wanted ones.
fn own_path(groups: &str, wanted: impl Fn(&str) -> bool) -> Option<&str> {
    groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        wanted(controllers).then_some(path)
    })
}

/// Every limit from the group up to the root of the mount. A container that sees the host's path but only its own
/// part of the tree finds its limit at the root.
fn tightest(read: &dyn Fn(&str) -> Option<String>, mount: &str, path: &str, file: &str) -> Option<u64> {
    let path = path.trim_end_matches('/');
    let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
    ends.filter_map(|end| read(&format!("{mount}{}/{file}", &path[..end])))
        .filter_map(|text| text.trim().parse().ok())
        .filter(|&limit| limit < UNLIMITED)
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(files: &[(&str, &str)]) -> Option<u64> {
        memory_limit_from(&|path| files.iter().find(|(name, _)| *name == path).map(|(_, text)| text.to_string()))
    }

    #[test]
    fn version_2_takes_the_tightest_on_the_way_up() {
        let files = [
            ("/proc/self/cgroup", "0::/kubepods/pod1/box\n"),
            ("/sys/fs/cgroup/kubepods/memory.max", "900\n"),
            ("/sys/fs/cgroup/kubepods/pod1/memory.max", "200\n"),
            ("/sys/fs/cgroup/kubepods/pod1/box/memory.max", "max\n"),
        ];
        assert_eq!(limit(&files), Some(200));
    }

    #[test]
    fn a_container_finds_its_limit_at_the_root() {
        assert_eq!(limit(&[("/proc/self/cgroup", "0::/\n"), ("/sys/fs/cgroup/memory.max", "512\n")]), Some(512));
        let hidden = [
            ("/proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/docker/abc\n0::/docker/abc\n"),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "1024\n"),
        ];
        assert_eq!(limit(&hidden), Some(1024));
    }

    #[test]
    fn no_limit_is_none() {
        assert_eq!(limit(&[]), None);
        assert_eq!(limit(&[("/proc/self/cgroup", "0::/\n"), ("/sys/fs/cgroup/memory.max", "max\n")]), None);
        let first = [
            ("/proc/self/cgroup", "4:memory:/\n"),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ];
        assert_eq!(limit(&first), None);
    }

    #[test]
    fn there_is_at_least_one_processor() {
        assert!(count() >= 1);
    }
}
