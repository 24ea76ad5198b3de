//! One run of the agent, start to stop.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::dns::Protocol;
use crate::observe::log::{self, Log};
use crate::observe::{Registry, counters, probe};
use crate::resolve::Shared;
use crate::serve::{Places, Setup};
use crate::sys::seccomp::{self, Confined};
use crate::sys::{self, clock, privileges, sockopt};

use super::channel::{Ends, Keeper, Line, News, Probed};
use super::endpoints::Endpoints;
use super::last::Last;
use super::load::{Loaded, Refused, load, recall};
use super::looping::{self, Found};
use super::options::{LogFormat, Options};
use super::reload::{Reason, show};
use super::scrape;
use super::server::Server;
use super::signals::{Asked, Signals};
use super::snapshot::{Common, Next, Snapshot};
use super::sources::{Notice, Sources};
use super::watch::Watch;

/// Exit code after a second interrupt.
const INTERRUPTED: u8 = 2;
/// How long the last log lines may take to be written.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Version, revision (where the builder tells it) and the oldest Rust that builds this.
const BUILD: [&str; 3] = [
    env!("CARGO_PKG_VERSION"),
    match option_env!("DNSLET_REVISION") {
        Some(revision) => revision,
        None => "",
    },
    concat!("rust", env!("CARGO_PKG_RUST_VERSION")),
];

/// A running agent.
pub(super) struct Agent<'a> {
    pub(super) options: &'a Options,
    pub(super) log: Log,
    pub(super) common: Common,
    pub(super) sources: Sources,
    pub(super) shared: Arc<Shared>,
    pub(super) server: Server,
    pub(super) endpoints: Endpoints,
    /// `None` where the kernel gave no inotify instance: then the slow poll sees changes.
    pub(super) watch: Option<Watch>,
    pub(super) current: Snapshot,
    /// The digest or the fault of the configuration last looked at, applied or not.
    pub(super) seen: String,
    /// Problems with resolv.conf files that were logged and still hold.
    pub(super) said: BTreeSet<String>,
    pub(super) probing: Option<AbortHandle>,
    pub(super) loops: mpsc::Sender<Found>,
}

/// Serves as the keeper's child until told to stop, and returns the exit code. The error is for the operator. To be called
/// before the process has other threads: it gives up its privileges first.
pub fn serve(ends: Ends, options: &Options) -> Result<u8> {
    let keeper = Keeper::adopt(ends.requests).context("the line to the keeper")?;
    let news = sys::channel::adopt(ends.news).context("the line to the keeper")?;
    nix::sys::prctl::set_name(c"dnslet").context("cannot set the name of the process")?;
    // Where it may not, it does with what there is.
    let _ = sockopt::raise_descriptor_limit();
    let dropped = privileges::drop(Some(options.user), ends.parent).context("cannot give up privileges")?;
    let confined = seccomp::confine().context("cannot give up system calls")?;
    let registry = Registry::new(options.workers);
    registry.gauge(&counters::BUILD_INFO, &BUILD).set(1.0);
    let look = log::Options { json: options.log_format == LogFormat::Json, debug: false };
    let log = Log::start(look, Box::new(io::stdout()), &registry).context("cannot start the log")?;
    log.install().context("cannot install the log")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let code = runtime.block_on(async {
        let (loops, loops_found) = mpsc::channel(16);
        let mut signals = Signals::new()?;
        if dropped.ids.0 == 0 && options.user.0 != 0 {
            tracing::info!("The server runs as {dropped}");
        }
        if let Confined::Unsupported(why) = confined {
            tracing::warn!("the server may use every system call: {why}");
        }
        match Agent::start(options, &log, keeper, registry, loops).await {
            Ok(mut agent) => agent.live(&mut signals, Line::new(news)?, loops_found).await,
            Err((keeper, error)) => {
                // Somebody has to mend something first. The keeper may have gone, and then it does not matter.
                let _ = keeper.leaving(1);
                Err(error)
            }
        }
    });
    log.flush(LAST_LINES);
    code
}

/// The `errors` plugin counts what it was told to consolidate, and tells it when the time has come.
async fn tell_errors(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = clock::now();
        shared.load().error_logs().for_each(|log| log.tick(now));
    }
}

/// A second interrupt, or a quit, does not wait for the drain.
async fn leave_at_once(signals: &mut Signals) -> u8 {
    loop {
        match signals.next().await {
            Asked::Interrupt => return INTERRUPTED,
            Asked::Quit => return 0,
            Asked::Reload | Asked::Upgrade | Asked::Terminate => {}
        }
    }
}

impl<'a> Agent<'a> {
    /// Sources, compile, pools, sockets, workers, ready. The error comes with the line to the keeper.
    async fn start(
        options: &'a Options,
        log: &Log,
        keeper: Keeper,
        registry: Arc<Registry>,
        loops: mpsc::Sender<Found>,
    ) -> Result<Agent<'a>, (Keeper, anyhow::Error)> {
        options.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        let last = match keeper.recall() {
            Ok(last) => last,
            Err(fault) => return Err((keeper, anyhow::Error::msg(fault))),
        };
        let mut sources = Sources::new(options);
        let loaded = load(&mut sources, options, |text| show(&keeper, text));
        say(&registry, sources.take_notices());
        let common = Common::new(options, keeper, registry, log.query_log());
        common.budget.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        let (next, endpoints, refused) = match Agent::prepare(&common, loaded, last.as_ref(), options).await {
            Ok(prepared) => prepared,
            Err(error) => return Err((common.keeper, error)),
        };
        let shared = Arc::new(Shared::new(Arc::clone(&next.snapshot.resolver)));
        let server = match Server::start(&setup(&common, &shared), options.workers) {
            Ok(server) => server,
            Err(error) => return Err((common.keeper, anyhow!(error).context("cannot start workers"))),
        };
        let watch = Watch::new().inspect_err(|error| {
            tracing::warn!("cannot watch files ({error}); changes are seen every few seconds only");
        });
        let mut agent = Agent {
            options,
            log: log.clone(),
            common,
            sources,
            shared,
            server,
            endpoints,
            watch: watch.ok(),
            current: next.snapshot.clone(),
            seen: String::new(),
            said: BTreeSet::new(),
            probing: None,
            loops,
        };
        if let Err(error) = agent.publish(next).await {
            return Err((agent.common.keeper, anyhow!(error).context("a worker cannot watch its sockets")));
        }
        refused.iter().for_each(|error| agent.recalled(error));
        agent.common.readiness.ready("agent");
        agent.announce();
        Ok(agent)
    }

    /// Prepares what there is to be read, or what was in force before with the reason why it is that.
    async fn prepare(
        common: &Common,
        loaded: Result<Loaded, Refused>,
        last: Option<&Last>,
        options: &Options,
    ) -> Result<(Next, Endpoints, Option<anyhow::Error>)> {
        let endpoints =
            Endpoints::new(Arc::clone(&common.registry), Arc::clone(&common.readiness), Arc::clone(&common.health));
        let known = last.map(|last| last.hosts.clone()).unwrap_or_default();
        let prepare = async |loaded: Result<Loaded, Refused>| {
            let loaded = loaded?;
            loaded.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
            common.prepare(loaded, &[], &known, &endpoints).await.map_err(anyhow::Error::msg)
        };
        let (next, refused) = match (prepare(loaded).await, last) {
            (Err(error), Some(last)) => match prepare(recall(&last.text, options)).await {
                Ok(next) => (next, Some(error)),
                Err(_) => return Err(error),
            },
            (prepared, _) => (prepared?, None),
        };
        Ok((next, endpoints, refused))
    }

    /// Waits for events, and then stops.
    async fn live(&mut self, signals: &mut Signals, news: Line, mut loops: mpsc::Receiver<Found>) -> Result<u8> {
        let tell_errors = tokio::spawn(tell_errors(Arc::clone(&self.shared)));
        // Kept over iterations: news come more often than it is time to look.
        let mut next_look = clock::now() + self.poll_period();
        let asked = loop {
            if self.common.keeper.is_broken() {
                return Err(anyhow!("the keeper did not reply"));
            }
            let changed = async {
                match &mut self.watch {
                    Some(watch) => watch.changed().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                asked = signals.next() => match asked {
                    Asked::Reload => self.reload(Reason::Asked).await,
                    Asked::Upgrade => tracing::warn!("SIGUSR2: this version does not replace itself; start the new one beside it"),
                    Asked::Quit => return Ok(0),
                    Asked::Terminate | Asked::Interrupt => break asked,
                },
                told = news.next() => self.hear(told.map(|told| told.map(|(news, _)| news)))?,
                Some(found) = loops.recv() => {
                    self.common.registry.counter(&counters::LOOPS, &[]).increment(1);
                    tracing::error!(plugin = "loop", "{}", found.sentence);
                    if self.options.exit_on_loop {
                        self.common.keeper.leaving(1).map_err(anyhow::Error::msg)?;
                        return Ok(1);
                    }
                }
                () = changed => self.look_again().await,
                () = tokio::time::sleep_until(next_look.into()) => {
                    self.look_again().await;
                    next_look = clock::now() + self.poll_period();
                }
                () = self.server.broken() => return Err(anyhow!("a worker ended; see the log for its panic")),
            }
        };
        let code = tokio::select! {
            code = self.stop(asked) => code,
            code = leave_at_once(signals) => code,
        };
        tell_errors.abort();
        Ok(code)
    }

    /// Takes down what the keeper knows. Without a keeper nobody holds the sockets and the rules, so this is the end.
    fn hear(&self, told: io::Result<Option<News>>) -> Result<()> {
        match told.context("the line to the keeper")? {
            Some(News::Kept(kept)) => scrape::take_down_kept(&self.common.registry, self.options, &kept),
            Some(News::Probed(all)) => {
                for Probed { listen, tcp, result } in all {
                    let protocol = if tcp { Protocol::Tcp } else { Protocol::Udp };
                    probe::take_down(&self.common.health, &self.common.registry, listen, protocol, result);
                }
            }
            None => return Err(anyhow!("the keeper has ended")),
        }
        Ok(())
    }

    /// What CoreDNS prints at start, and for the built-in Corefile what to try.
    fn announce(&self) {
        if !self.options.quiet {
            self.current.zone_lines().iter().for_each(|line| self.log.raw(line));
        }
        self.log.raw(&format!("dnslet-{}", env!("CARGO_PKG_VERSION")));
        self.log.raw(&format!("{}/{}, pid {}", std::env::consts::OS, std::env::consts::ARCH, nix::unistd::getppid()));
        tracing::info!(plugin = "reload", "Running configuration SHA512 = {}", self.current.digest);
        tracing::info!("{}", self.common.budget);
        if self.options.configuration == super::options::Configuration::BuiltIn {
            super::sources::BUILT_IN_HINTS.lines().for_each(|line| self.log.raw(line));
        }
    }

    /// Looks for loops of the snapshot in force; what was under way for the one before is dropped.
    pub(super) fn look_for_loops(&mut self) {
        let task = tokio::spawn(looping::run(Arc::clone(&self.current.resolver), self.loops.clone()));
        if let Some(old) = self.probing.replace(task.abort_handle()) {
            old.abort();
        }
    }
}

fn setup(common: &Common, shared: &Arc<Shared>) -> Setup {
    Setup {
        resolver: Arc::clone(shared),
        places: Places::new(&common.budget.limits),
        registry: Arc::clone(&common.registry),
        limits: common.budget.limits.clone(),
    }
}

/// Logs and counts what the sources had to say.
pub(super) fn say(registry: &Registry, notices: Vec<Notice>) {
    for notice in notices {
        match notice {
            Notice::ConfigMap(text) => {
                registry.counter(&counters::SETUP_ERRORS, &["configmap"]).increment(1);
                tracing::error!("{text}");
            }
            Notice::Warning(text) => tracing::warn!("{text}"),
            Notice::Generated(text) => tracing::info!("{text}"),
        }
    }
}
