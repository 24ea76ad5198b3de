//! The files of `loadbalance weighted`: read with the configuration, read again while it is in force.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::plugins::front::loadbalance::{Loadbalance, Weighted};
use crate::plugins::front::weights::Weights;
use crate::resolve::Resolver;
use crate::routes::Routes;

/// What the weight files of a configuration hold.
#[derive(Debug, Clone, Default)]
pub(super) struct WeightFiles(BTreeMap<Weighted, Held>);

#[derive(Debug, Clone)]
struct Held {
    weights: Arc<Weights>,
    /// What was wrong when the file was last read; the weights are older then.
    fault: Option<String>,
}

impl WeightFiles {
    /// Reads every file the routes name. The error, of the first that cannot be used, is a sentence for the operator.
    pub(super) fn read(routes: &Routes) -> Result<WeightFiles, String> {
        let mut files = BTreeMap::new();
        for route in &routes.routes {
            let Some(Loadbalance::Weighted(weighted)) = &route.loadbalance else { continue };
            if !files.contains_key(weighted) {
                let weights = Arc::new(read(&weighted.file)?);
                files.insert(weighted.clone(), Held { weights, fault: None });
            }
        }
        Ok(WeightFiles(files))
    }

    /// Reads the same files again and says what is new: the file whose weights changed, or what is wrong with one that
    /// keeps what it had. What was said is not said again.
    pub(super) fn read_again(&mut self) -> Vec<Result<String, String>> {
        let mut news = Vec::new();
        for (weighted, held) in self.0.iter_mut().filter(|(weighted, _)| !weighted.reload.is_zero()) {
            match read(&weighted.file) {
                Ok(weights) => {
                    held.fault = None;
                    if weights != *held.weights {
                        held.weights = Arc::new(weights);
                        news.push(Ok(weighted.file.display().to_string()));
                    }
                }
                Err(fault) if held.fault.as_ref() == Some(&fault) => {}
                Err(fault) => {
                    held.fault = Some(fault.clone());
                    news.push(Err(fault));
                }
            }
        }
        news
    }

    /// Gives the weights to those who use them.
    pub(super) fn hand_to(&self, resolver: &Resolver) {
        self.0.iter().for_each(|(weighted, held)| resolver.weigh(weighted, &held.weights));
    }

    /// The files that are read again.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.followed().map(|weighted| weighted.file.as_path())
    }

    /// After how long at the latest the first of them is to be read again.
    pub(super) fn period(&self) -> Option<Duration> {
        self.followed().map(|weighted| weighted.reload).min()
    }

    fn followed(&self) -> impl Iterator<Item = &Weighted> {
        self.0.keys().filter(|weighted| !weighted.reload.is_zero())
    }
}

fn read(path: &Path) -> Result<Weights, String> {
    let file = path.display();
    let bytes = std::fs::read(path).map_err(|error| format!("cannot read the weights in {file}: {error}"))?;
    Weights::parse(&String::from_utf8_lossy(&bytes)).map_err(|(line, reason)| format!("{file}:{line}: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_faulty_file_keeps_the_old_weights_and_is_reported_once() {
        let path = std::env::temp_dir().join(format!("dnslet-weights-{}", std::process::id()));
        assert!(read(&path).unwrap_err().starts_with("cannot read the weights in "));
        let good = Weights::parse("a\n192.0.2.1 3").unwrap();
        let files = [Duration::ZERO, Duration::from_secs(30)].map(|reload| {
            let held = Held { weights: Arc::new(good.clone()), fault: None };
            (Weighted { file: path.clone(), reload }, held)
        });
        let mut files = WeightFiles(files.into());
        let shown = path.display().to_string();
        for (text, news) in [
            ("a\n192.0.2.1 0", vec![Err(format!("{shown}:2: `0` is not a weight; write a number from 1 to 255"))]),
            ("a\n192.0.2.1 0", vec![]),
            ("# the same\na\n192.0.2.1 3", vec![]),
            ("a\n192.0.2.1 4", vec![Ok(shown.clone())]),
        ] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(files.read_again(), news, "{text}");
        }
        std::fs::remove_file(&path).unwrap();
        let held: Vec<&Weights> = files.0.values().map(|held| &*held.weights).collect();
        assert_eq!(held, [&good, &Weights::parse("a\n192.0.2.1 4").unwrap()], "reload 0s is never read again");
        assert_eq!((files.paths().count(), files.period()), (1, Some(Duration::from_secs(30))));
    }
}
