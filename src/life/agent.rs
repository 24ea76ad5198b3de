//! One run of the agent, start to stop.

use std::collections::BTreeSet;
use std::io;
use std::process;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::observe::log::{self, Log};
use crate::observe::{Registry, counters, probe};
use crate::resolve::Shared;
use crate::serve::{Limits, Places, Setup};
use crate::sys::{clock, sockopt};

use super::endpoints::Endpoints;
use super::load::{Loaded, load};
use super::looping::{self, Found};
use super::options::{LogFormat, Options};
use super::pidfile::Pidfile;
use super::reload::Reason;
use super::server::Server;
use super::signals::{Asked, Signals};
use super::snapshot::{Common, Snapshot};
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

/// Serves until told to stop, and returns the exit code. The error is for the operator.
pub fn run(options: &Options) -> Result<u8> {
    let registry = Registry::new(options.workers);
    registry.gauge(&counters::BUILD_INFO, &BUILD).set(1.0);
    let look = log::Options { json: options.log_format == LogFormat::Json, debug: false };
    let log = Log::start(look, Box::new(io::stdout()), &registry).context("cannot start the log")?;
    log.install().context("cannot install the log")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let code = runtime.block_on(live(options, &log, registry));
    log.flush(LAST_LINES);
    code
}

/// Options, sources, compile, pools, sockets, workers, ready; then events; then the mirror of it.
async fn live(options: &Options, log: &Log, registry: Arc<Registry>) -> Result<u8> {
    let mut signals = Signals::new()?;
    let (loops, mut loops_found) = mpsc::channel(16);
    options.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));

    let mut sources = Sources::new(options);
    let loaded = load(&mut sources, options);
    let common = Common::new(options, registry, log.query_log());
    say(&common.registry, sources.take_notices());
    let loaded = loaded?;
    loaded.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let mut agent = Agent::start(options, log, common, sources, loaded, loops).await?;
    let _pidfile = options.pidfile.clone().map(Pidfile::write).transpose().context("cannot write the pidfile")?;
    agent.announce();

    let health = tokio::spawn(probe::run(Arc::clone(&agent.common.health), Arc::clone(&agent.common.registry)));
    let tell_errors = tokio::spawn(tell_errors(Arc::clone(&agent.shared)));
    let asked = loop {
        let period = agent.poll_period();
        let changed = async {
            match &mut agent.watch {
                Some(watch) => watch.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            asked = signals.next() => match asked {
                Asked::Reload => agent.reload(Reason::Asked).await,
                Asked::Upgrade => tracing::warn!("SIGUSR2: this version does not replace itself; start the new one beside it"),
                Asked::Quit => return Ok(0),
                Asked::Terminate | Asked::Interrupt => break asked,
            },
            Some(found) = loops_found.recv() => {
                agent.common.registry.counter(&counters::LOOPS, &[]).increment(1);
                tracing::error!(plugin = "loop", "{}", found.sentence);
                if options.exit_on_loop {
                    return Ok(1);
                }
            }
            () = changed => agent.look_again().await,
            () = tokio::time::sleep(period) => agent.look_again().await,
            () = agent.server.broken() => return Err(anyhow!("a worker ended; see the log for its panic")),
        }
    };
    let code = tokio::select! {
        code = agent.stop(asked) => code,
        code = leave_at_once(&mut signals) => code,
    };
    health.abort();
    tell_errors.abort();
    Ok(code)
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
    async fn start(
        options: &'a Options,
        log: &Log,
        common: Common,
        sources: Sources,
        loaded: Loaded,
        loops: mpsc::Sender<Found>,
    ) -> Result<Agent<'a>> {
        let endpoints =
            Endpoints::new(Arc::clone(&common.registry), Arc::clone(&common.readiness), Arc::clone(&common.health));
        let next = common.prepare(loaded, &[], &endpoints).await.map_err(anyhow::Error::msg)?;
        let shared = Arc::new(Shared::new(Arc::clone(&next.snapshot.resolver)));
        let server =
            Server::start(&setup(options, &common, &shared), options.workers).context("cannot start workers")?;
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
        agent.publish(next).await.context("a worker cannot watch its sockets")?;
        agent.common.readiness.ready("agent");
        Ok(agent)
    }

    /// What CoreDNS prints at start, and for the built-in Corefile what to try.
    fn announce(&self) {
        if !self.options.quiet {
            self.current.zone_lines().iter().for_each(|line| self.log.raw(line));
        }
        self.log.raw(&format!("dnslet-{}", env!("CARGO_PKG_VERSION")));
        self.log.raw(&format!("{}/{}, pid {}", std::env::consts::OS, std::env::consts::ARCH, process::id()));
        tracing::info!(plugin = "reload", "Running configuration SHA512 = {}", self.current.digest);
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

fn setup(options: &Options, common: &Common, shared: &Arc<Shared>) -> Setup {
    let limits = Limits {
        connections: options.tcp.connections,
        per_source: options.tcp.per_client,
        per_connection: options.tcp.in_flight,
        ..Limits::default()
    };
    let limits = sockopt::descriptor_limit().map_or(limits.clone(), |descriptors| limits.within(descriptors));
    Setup { resolver: Arc::clone(shared), places: Places::new(&limits), registry: Arc::clone(&common.registry), limits }
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
