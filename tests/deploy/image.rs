//! The image that `make image` leaves in dist/, taken apart as a container runtime does.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::lab::host::run;
use crate::support::process::Directory;

pub const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// What an image may weigh, packed and unpacked.
const LARGEST: u64 = 15_000_000;

#[test]
fn it_holds_one_program_and_what_is_said_about_it() {
    let directory = Directory::new();
    let bundle = directory.path().join("bundle");
    let config = unpack("", &bundle);
    let root = bundle.join("rootfs");
    let mut files: Vec<(String, u64)> = std::fs::read_dir(&root)
        .expect("umoci makes it")
        .map(|entry| entry.and_then(|entry| Ok((entry.file_name(), entry.metadata()?))).expect("a file"))
        .map(|(name, metadata)| (name.into_string().expect("UTF-8"), metadata.len()))
        .collect();
    files.sort();
    let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["LICENSE", "THIRD-PARTY-LICENSES", "dnslet", "dnslet.cdx.json"]);
    assert_eq!(config["process"]["args"], serde_json::json!(["/dnslet"]));
    assert_eq!(config["annotations"]["org.opencontainers.image.version"], env!("CARGO_PKG_VERSION"));

    let packed = archive("").metadata().expect("it was unpacked").len();
    println!("image: {packed} bytes; in it {files:?}");
    assert!(packed.max(files.iter().map(|(_, size)| size).sum()) < LARGEST, "{packed} bytes, {files:?}");
    check_materials(&root.join("dnslet.cdx.json"));
}

/// Each component is a library of the lock file, and there are some.
fn check_materials(path: &Path) {
    let text = std::fs::read_to_string(path).expect("a bill of materials");
    let lock = std::fs::read_to_string(Path::new(ROOT).join("Cargo.lock")).expect("the lock file");
    let bill: Value = serde_json::from_str(&text).expect("JSON");
    let components = bill["components"].as_array().expect("components");
    for component in components {
        let entry = format!("name = {}\nversion = {}\n", component["name"], component["version"]);
        assert!(lock.contains(&entry), "{entry} is not in the lock file");
    }
    println!("bill of materials: {} libraries", components.len());
    assert!(components.iter().any(|component| component["name"] == "tokio"), "{components:?}");
    assert!(!text.contains("file://"), "the bill of materials tells where it was made");
}

#[test]
fn the_same_program_makes_the_same_bytes() {
    let directory = Directory::new();
    unpack("", &directory.path().join("bundle"));
    let program = directory.path().join("bundle/rootfs/dnslet");
    for flavour in ["", "iptables"] {
        let made = ["once", "again"].map(|name| {
            let out = directory.path().join(name);
            let umask = if name == "once" { "022" } else { "077" };
            let mut command = Command::new("sh");
            command.args(["-c", "umask $0; exec daemonset/image/build $1", umask, flavour]).current_dir(ROOT);
            run(command.env("BINARY", &program).env("OUT", &out));
            std::fs::read(out.join(file(flavour))).expect("the archive")
        });
        assert!(made[0] == made[1], "the flavour {flavour:?} differs from one time to the next");
    }
}

/// The archive of a flavour; the plain image's has no name.
pub fn archive(flavour: &str) -> PathBuf {
    let archive = Path::new(ROOT).join("dist").join(file(flavour));
    assert!(archive.exists(), "{}: `make test-deploy` makes it", archive.display());
    archive
}

/// Unpacks the image into the directory: `rootfs` and the `config.json` that its own configuration makes, which is
/// returned.
pub fn unpack(flavour: &str, bundle: &Path) -> Value {
    let layout = bundle.with_extension("layout");
    std::fs::create_dir_all(&layout).expect("a writable directory");
    run(Command::new("tar").arg("-xf").arg(archive(flavour)).arg("-C").arg(&layout));
    let image = format!("{}:{}", layout.display(), tag(flavour));
    run(Command::new("umoci").args(["unpack", "--image", &image]).arg(bundle));
    let config = std::fs::read(bundle.join("config.json")).expect("umoci writes it");
    serde_json::from_slice(&config).expect("an OCI runtime configuration")
}

/// What a runtime calls this machine's architecture.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => panic!("no image is made on {other}"),
    }
}

fn file(flavour: &str) -> String {
    format!("dnslet-{}-{}.oci.tar", tag(flavour), architecture())
}

fn tag(flavour: &str) -> String {
    let version = env!("CARGO_PKG_VERSION");
    if flavour.is_empty() { version.to_owned() } else { format!("{version}-{flavour}") }
}
