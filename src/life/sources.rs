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
    cache {
        serve_stale 24h verify
    }
    loadbalance
    forward . /etc/resolv.conf
    health 127.0.0.1:18080
    ready 127.0.0.1:18181
    prometheus 127.0.0.1:19153
}
";

/// What to try with it.
pub const BUILT_IN_HINTS: &str = "\
answers on 127.0.0.1:1053, UDP and TCP; upstreams are those of /etc/resolv.conf
metrics    http://127.0.0.1:19153/metrics
try        dig @127.0.0.1 -p 1053 example.org
";

/// The configuration as read now, and what is worth a log line about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// The Corefile.
    pub corefile: String,
    /// It was filled from a template and differs from the last one.
    pub regenerated: bool,
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

impl Notice {
    /// The text, if it tells of a problem.
    pub fn problem(&self) -> Option<&str> {
        match self {
            Notice::ConfigMap(text) | Notice::Warning(text) => Some(text),
            Notice::Generated(_) => None,
        }
    }
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
            SourceError::Unreadable(path, error) if error.kind() == io::ErrorKind::PermissionDenied => write!(
                f,
                "cannot read {}: {error}: the server runs as user {}; make the file readable for it, or say -user",
                path.display(),
                nix::unistd::Uid::effective()
            ),
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
    pending: Vec<Notice>,
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
            pending: Vec::new(),
        }
    }

    /// Reads the configuration as it is now; a template is filled.
    pub fn read(&mut self) -> Result<Text, SourceError> {
        self.read_with(&|variable| std::env::var(variable).ok())
    }

    /// What the readings so far had to say and was not taken yet. What was said once is not repeated.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.pending)
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
        Ok(Text { corefile, regenerated: false })
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
        let filled = template::fill(&base, template, environment, &self.config_map, self.dns_port);
        let filled = filled.map_err(|error| SourceError::Template(template.path.clone(), error));
        if let Ok(filled) = &filled {
            notices.extend(filled.warnings.iter().cloned().map(Notice::Warning));
        }
        self.news(notices);
        let corefile = filled?.text;
        let regenerated = self.last_text.as_ref() != Some(&corefile);
        if regenerated {
            self.pending.push(Notice::Generated(summary(&self.config_map)));
            self.last_text = Some(corefile.clone());
        }
        Ok(Text { corefile, regenerated })
    }

    /// Takes down those of `notices` that the last reading did not have; a problem that went away may be said again.
    fn news(&mut self, notices: Vec<Notice>) {
        self.pending.extend(notices.iter().filter(|notice| !self.said.contains(notice)).cloned());
        self.said = notices;
    }
}

fn summary(map: &ConfigMap) -> String {
    let servers = match map.upstream_nameservers.as_slice() {
        [] => "/etc/resolv.conf".to_owned(),
        servers => servers.join(" "),
    };
    format!("Updated Corefile with {} custom stubdomains and upstream servers {servers}", map.stub_domains.len())
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
                pending: Vec::new(),
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
    fn the_template_is_filled_and_said_to_be_regenerated_only_when_it_changes() {
        let place = Place::new("filled");
        fs::write(place.0.join("Corefile.base"), "forward . __PILLAR__CLUSTER__DNS__\n").unwrap();
        let mut sources = place.sources();
        let text = sources.read_with(&environment).unwrap();
        assert_eq!(text, Text { corefile: "forward . 10.96.0.99\n".to_owned(), regenerated: true });
        assert!(matches!(&sources.take_notices()[..], [Notice::Generated(_)]));
        assert!(!sources.read_with(&environment).unwrap().regenerated);
        assert!(sources.take_notices().is_empty());
    }

    #[test]
    fn an_invalid_config_map_is_said_once_and_the_last_good_one_stays() {
        let place = Place::new("configmap");
        fs::write(place.0.join("Corefile.base"), "forward . __PILLAR__UPSTREAM__SERVERS__\n").unwrap();
        let map = place.0.join("kube-dns/upstreamNameservers");
        fs::write(&map, r#"["192.0.2.1"]"#).unwrap();
        let mut sources = place.sources();
        assert_eq!(sources.read_with(&environment).unwrap().corefile, "forward . 192.0.2.1\n");
        sources.take_notices();
        let is_ignored = |notices: Vec<Notice>| matches!(&notices[..], [Notice::ConfigMap(text)] if text.contains("is ignored: upstreamNameservers"));
        fs::write(&map, "[").unwrap();
        assert_eq!(sources.read_with(&environment).unwrap().corefile, "forward . 192.0.2.1\n");
        assert!(is_ignored(sources.take_notices()));
        assert!(!sources.read_with(&environment).unwrap().regenerated);
        assert!(sources.take_notices().is_empty(), "said once");
        fs::remove_file(&map).unwrap();
        assert_eq!(sources.read_with(&environment).unwrap().corefile, "forward . /etc/resolv.conf\n");
        sources.take_notices();
        fs::write(&map, "[").unwrap();
        sources.read_with(&environment).unwrap();
        assert!(is_ignored(sources.take_notices()), "said again after it was mended");
    }

    #[test]
    fn a_missing_template_names_the_file() {
        let place = Place::new("missing");
        let error = place.sources().read_with(&environment).unwrap_err().to_string();
        assert!(error.starts_with("cannot read ") && error.contains("Corefile.base"), "{error}");
    }
}
