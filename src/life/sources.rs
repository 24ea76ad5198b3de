//! Where the Corefile's text comes from: the thin shell of files around `template` and `kubedns`.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::kubedns::{ConfigMap, ConfigMapError};
use super::options::{Configuration, Options, Template};
use super::template::{self, TemplateError};

/// Served when nothing else is given: unprivileged, on the loopback, to the host's own upstreams.
pub const BUILT_IN: &str = "\
.:1053 {
    bind 127.0.0.1
    errors
    cache
    loadbalance
    forward . /etc/resolv.conf
    health 127.0.0.1:18080
    ready 127.0.0.1:18181
    prometheus 127.0.0.1:19153
}
";

/// The configuration as read now, and what is worth a log line about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// The Corefile.
    pub corefile: String,
    /// It was filled from a template: changed inputs change it.
    pub generated: bool,
    /// Each is new: what was said in the last reading is not repeated.
    pub notices: Vec<Notice>,
}

/// Something to log that does not stop the configuration from being used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The ConfigMap is invalid and ignored as a whole; counted as errortype `configmap`.
    ConfigMap(String),
    /// Something to look at.
    Warning(String),
    /// The Corefile was generated anew.
    Generated(String),
}

/// Why there is no text.
#[derive(Debug)]
pub enum SourceError {
    /// A file cannot be read.
    Unreadable(PathBuf, io::Error),
    /// The template cannot be filled.
    Template(PathBuf, TemplateError),
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SourceError::Unreadable(path, error) => write!(f, "cannot read {}: {error}", path.display()),
            SourceError::Template(path, error) => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl std::error::Error for SourceError {}

/// The configured source, with what has to be remembered between two readings.
#[derive(Debug)]
pub struct Sources {
    configuration: Configuration,
    dns_port: u16,
    /// Standard input can be read once.
    stdin: Option<String>,
    /// The last valid ConfigMap: an invalid one does not take working stub domains away.
    config_map: ConfigMap,
    last_text: Option<String>,
    said: Vec<Notice>,
}

impl Sources {
    /// Nothing is read yet.
    pub fn new(options: &Options) -> Sources {
        Sources {
            configuration: options.configuration.clone(),
            dns_port: options.dns_port,
            stdin: None,
            config_map: ConfigMap::default(),
            last_text: None,
            said: Vec::new(),
        }
    }

    /// Reads the configuration as it is now; a template is filled.
    pub fn read(&mut self) -> Result<Text, SourceError> {
        self.read_with(&|variable| std::env::var(variable).ok())
    }

    /// Writes the filled template to `-conf` if it differs from what is there. The text is used from memory, so a
    /// read-only file system costs nothing but the warning.
    pub fn write_output(&mut self, text: &Text) -> Option<Notice> {
        let Configuration::Template(Template { output: Some(path), .. }) = &self.configuration else { return None };
        let error = write_if_changed(path, &text.corefile).err()?;
        let notice = Notice::Warning(format!(
            "cannot write {}: {error}; the Corefile is used from memory, the file does not show it",
            path.display()
        ));
        self.news(vec![notice]).pop()
    }

    /// The files whose change may change the text, imports aside.
    pub fn files(&self) -> Vec<PathBuf> {
        match &self.configuration {
            Configuration::BuiltIn | Configuration::Stdin => Vec::new(),
            Configuration::File(path) => vec![path.clone()],
            Configuration::Template(template) => vec![
                template.path.clone(),
                template.config_map.join("stubDomains"),
                template.config_map.join("upstreamNameservers"),
            ],
        }
    }

    fn read_with(&mut self, environment: &dyn Fn(&str) -> Option<String>) -> Result<Text, SourceError> {
        let corefile = match &self.configuration {
            Configuration::BuiltIn => BUILT_IN.to_owned(),
            Configuration::Stdin => match &self.stdin {
                Some(text) => text.clone(),
                None => self.stdin.insert(read_stdin()?).clone(),
            },
            Configuration::File(path) => read_file(path)?,
            Configuration::Template(template) => {
                let template = template.clone();
                return self.fill(&template, environment);
            }
        };
        Ok(Text { corefile, generated: false, notices: Vec::new() })
    }

    fn fill(&mut self, template: &Template, environment: &dyn Fn(&str) -> Option<String>) -> Result<Text, SourceError> {
        let base = read_file(&template.path)?;
        let mut notices = Vec::new();
        match read_config_map(&template.config_map) {
            Ok(map) => self.config_map = map,
            Err(error) => notices.push(Notice::ConfigMap(format!(
                "the ConfigMap in {} is ignored: {error}",
                template.config_map.display()
            ))),
        }
        let address = environment(&template.service_variable());
        let filled = template::fill(&base, template, address.as_deref(), &self.config_map, self.dns_port)
            .map_err(|error| SourceError::Template(template.path.clone(), error))?;
        notices.extend(filled.warnings.into_iter().map(Notice::Warning));
        let mut notices = self.news(notices);
        if self.last_text.as_ref() != Some(&filled.text) {
            let servers = match self.config_map.upstream_nameservers.as_slice() {
                [] => "/etc/resolv.conf".to_owned(),
                servers => servers.join(" "),
            };
            let stubs = self.config_map.stub_domains.len();
            notices.push(Notice::Generated(format!(
                "Updated Corefile with {stubs} custom stubdomains and upstream servers {servers}"
            )));
            self.last_text = Some(filled.text.clone());
        }
        Ok(Text { corefile: filled.text, generated: true, notices })
    }

    /// Those of `notices` that were not said before; a problem that went away may be said again.
    fn news(&mut self, notices: Vec<Notice>) -> Vec<Notice> {
        let fresh = notices.iter().filter(|notice| !self.said.contains(notice)).cloned().collect();
        let kind = |notice: &Notice| matches!(notice, Notice::ConfigMap(_));
        if !notices.iter().any(kind) {
            self.said.retain(|notice| !kind(notice));
        }
        for notice in &notices {
            if !self.said.contains(notice) && self.said.len() < 64 {
                self.said.push(notice.clone());
            }
        }
        fresh
    }
}

fn read_file(path: &Path) -> Result<String, SourceError> {
    let bytes = fs::read(path).map_err(|error| SourceError::Unreadable(path.to_owned(), error))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn read_stdin() -> Result<String, SourceError> {
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::stdin().lock(), &mut bytes)
        .map_err(|error| SourceError::Unreadable("stdin".into(), error))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A missing directory or file means the key is not set.
fn read_config_map(directory: &Path) -> Result<ConfigMap, ConfigMapError> {
    let read = |key: &'static str| match fs::read(directory.join(key)) {
        Ok(bytes) => String::from_utf8(bytes).map(Some).map_err(|_| "it is not UTF-8 text".to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.to_string()),
    };
    let key = |key: &'static str| read(key).map_err(|reason| ConfigMapError { key, reason });
    ConfigMap::parse(key("stubDomains")?.as_deref(), key("upstreamNameservers")?.as_deref(), &|path| {
        Path::new(path).is_file()
    })
}

/// Replaces the file by renaming, so that a reader sees the old or the new text. Where the directory does not allow it
/// (a single file mounted into a container), it is written in place.
fn write_if_changed(path: &Path, text: &str) -> io::Result<()> {
    if fs::read(path).is_ok_and(|old| old == text.as_bytes()) {
        return Ok(());
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let temporary = path.with_file_name(name);
    let renamed = fs::write(&temporary, text).and_then(|()| fs::rename(&temporary, path));
    if renamed.is_err() {
        let _ = fs::remove_file(&temporary);
        return fs::write(path, text);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Place {
            let path = std::env::temp_dir().join(format!("dnslet-sources-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(path.join("kube-dns")).unwrap();
            Place(path)
        }

        fn sources(&self) -> Sources {
            Sources {
                configuration: Configuration::Template(Template {
                    path: self.0.join("Corefile.base"),
                    output: Some(self.0.join("Corefile")),
                    local_ips: vec![[169, 254, 20, 10].into()],
                    upstream_service: "kube-dns-upstream".to_owned(),
                    config_map: self.0.join("kube-dns"),
                    prometheus_endpoint: ":9253".to_owned(),
                }),
                dns_port: 53,
                stdin: None,
                config_map: ConfigMap::default(),
                last_text: None,
                said: Vec::new(),
            }
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn environment(variable: &str) -> Option<String> {
        (variable == "KUBE_DNS_UPSTREAM_SERVICE_HOST").then(|| "10.96.0.99".to_owned())
    }

    #[test]
    fn the_filled_template_is_written_once_and_then_only_when_it_changes() {
        let place = Place::new("written");
        fs::write(place.0.join("Corefile.base"), "forward . __PILLAR__CLUSTER__DNS__\n").unwrap();
        let mut sources = place.sources();
        let text = sources.read_with(&environment).unwrap();
        assert_eq!(text.corefile, "forward . 10.96.0.99\n");
        assert_eq!(text.notices.len(), 1, "{:?}", text.notices);
        assert_eq!(sources.write_output(&text), None);
        let output = place.0.join("Corefile");
        let before = fs::metadata(&output).unwrap();
        let again = sources.read_with(&environment).unwrap();
        assert!(again.notices.is_empty(), "{:?}", again.notices);
        sources.write_output(&again);
        let inode = |metadata: &fs::Metadata| std::os::unix::fs::MetadataExt::ino(metadata);
        assert_eq!(inode(&fs::metadata(&output).unwrap()), inode(&before), "the same file");
        let names: Vec<_> = fs::read_dir(&place.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 3, "no temporary file is left: {names:?}");
    }

    #[test]
    fn an_invalid_config_map_is_said_once_and_the_last_good_one_stays() {
        let place = Place::new("configmap");
        fs::write(place.0.join("Corefile.base"), "forward . __PILLAR__UPSTREAM__SERVERS__\n").unwrap();
        let map = place.0.join("kube-dns/upstreamNameservers");
        fs::write(&map, r#"["192.0.2.1"]"#).unwrap();
        let mut sources = place.sources();
        assert_eq!(sources.read_with(&environment).unwrap().corefile, "forward . 192.0.2.1\n");
        fs::write(&map, "[").unwrap();
        let broken = sources.read_with(&environment).unwrap();
        assert_eq!(broken.corefile, "forward . 192.0.2.1\n");
        assert!(matches!(&broken.notices[..], [Notice::ConfigMap(text)] if text.contains("is ignored")), "{broken:?}");
        assert!(sources.read_with(&environment).unwrap().notices.is_empty());
        fs::remove_file(&map).unwrap();
        assert_eq!(sources.read_with(&environment).unwrap().corefile, "forward . /etc/resolv.conf\n");
        fs::write(&map, "[").unwrap();
        assert_eq!(sources.read_with(&environment).unwrap().notices.len(), 1, "said again after it was mended");
    }

    #[test]
    fn an_unwritable_output_is_a_warning() {
        let place = Place::new("readonly");
        fs::write(place.0.join("Corefile.base"), ". {\n}\n").unwrap();
        let mut sources = place.sources();
        if let Configuration::Template(template) = &mut sources.configuration {
            template.output = Some("/proc/dnslet/Corefile".into());
        }
        let text = sources.read_with(&environment).unwrap();
        assert!(matches!(sources.write_output(&text), Some(Notice::Warning(text)) if text.contains("from memory")));
        assert_eq!(sources.write_output(&text), None, "said once");
    }

    #[test]
    fn a_missing_template_names_the_file() {
        let place = Place::new("missing");
        let error = place.sources().read_with(&environment).unwrap_err().to_string();
        assert!(error.starts_with("cannot read ") && error.contains("Corefile.base"), "{error}");
    }
}
