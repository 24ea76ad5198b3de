//! The keeper: the process that holds what must not be lost, and sees to it that a server answers.
//!
//! It binds the listening sockets and lends them to the server, a child of the same program without privileges; it probes
//! those sockets, starts another server when one ends or does not answer, and has the node's link, addresses and rules
//! tended (`tending`). It reads no configuration and parses no message from the network: of the answer to its own probe it
//! looks at the identifier and at the last octets.
//!
//! A server that dies leaves its sockets here: what arrives meanwhile waits in their queues and the next server, started
//! at once, answers it. If the sockets do not answer for a second, clients are no longer steered to them, whatever the
//! cause; a server that stays silent for two more seconds is ended and replaced. If the keeper itself dies, the kernel
//! takes the rules away and ends the server with it.

mod behind;
mod child;
mod holdings;
mod inherited;
mod leaving;
mod output;
mod pace;
mod probes;
mod ready;
mod report;
mod requests;
mod stop;
mod succession;
mod tending;
mod watchdog;

pub use child::SERVER;

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep_until};

use crate::node::{Action, Status};
use crate::observe::Registry;
use crate::observe::log::{self, Log};
use crate::sys::clock;
use crate::sys::supervisor::{self, Supervisor};

use super::budget;
use super::channel::{Kept, News, Probed, Serving};
use super::last::Last;
use super::options::{Configuration, LogFormat, Options};
use super::pidfile::Pidfile;
use super::signals::{Asked, Signals};

use child::{Child, Event};
use holdings::Holdings;
use inherited::Inherited;
use pace::Pace;
use probes::Probes;
use ready::Account;
use report::{Report, State};
use tending::Tending;
use watchdog::Watchdog;

/// How often the sockets are asked over UDP. With the second that a probe has, silence is acted upon within 1.3 s.
const PROBE: Duration = Duration::from_millis(300);
/// How often the server is told what the keeper knows.
const NEWS: Duration = Duration::from_secs(1);
/// Servers that may end before the first one that serves.
const STILLBORN: u32 = 5;
/// A server that does not serve after so long is ended.
const START: Duration = Duration::from_secs(30);
/// How long the last log lines may take to be written.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Everything the keeper knows.
struct Keeper<'a> {
    options: &'a Options,
    stdin: Option<child::Stdin>,
    holdings: Holdings,
    child: Option<Child>,
    pace: Pace,
    /// When the next server is to be started, while there is none.
    next: Instant,
    /// What the last server said that it serves.
    serving: Option<Serving>,
    /// The configuration that it left for the next one.
    last: Option<Last>,
    watchdog: Watchdog,
    probes: Probes,
    tending: Option<Tending>,
    kept: Kept,
    /// How many servers ended before the first one that served.
    stillborn: u32,
    /// The end has begun: nothing is placed on the node any more.
    stopping: bool,
    /// A server that never answered was replaced already.
    tried: bool,
    /// The node's addresses that answered and do not, and since when there are any.
    out: BTreeSet<IpAddr>,
    open_since: Option<Instant>,
    pidfile: Option<Pidfile>,
    account: Account,
    report: Report,
}

/// Keeps a server running until told to stop, and returns the exit code. The error is for the operator.
pub fn run(options: &Options) -> Result<u8> {
    // Before anything is opened: the numbers of what is handed over are given.
    let inherited = supervisor::inherited().context("cannot take the service manager's sockets over")?;
    let inherited = Inherited::new(inherited).map_err(anyhow::Error::msg)?;
    let (supervisor, unheard) = match Supervisor::from_environment() {
        Ok(supervisor) => (supervisor, None),
        Err(error) => (Supervisor::default(), Some(error)),
    };
    let report = Report::new(supervisor);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let signals = {
        let _inside = runtime.enter();
        Signals::new()?
    };
    // A server that shares our user, where there are no others to choose from, must not look into our memory.
    nix::sys::prctl::set_dumpable(false).context("cannot hide the memory of this process")?;
    let look = log::Options { json: options.log_format == LogFormat::Json, debug: false };
    let log = Log::start(look, Box::new(io::stdout()), &Registry::new(1)).context("cannot start the log")?;
    log.install().context("cannot install the log")?;
    let stdin = (options.configuration == Configuration::Stdin).then(child::Stdin::read);
    let stdin = stdin.transpose().context("cannot read standard input")?;
    options.unset.iter().for_each(|unset| tracing::error!("{unset}"));
    unheard.iter().for_each(|error| tracing::warn!("{error}: the service manager is told nothing"));
    let code = runtime.block_on(async { Keeper::new(options, stdin, inherited, report).live(signals).await });
    log.flush(LAST_LINES);
    code
}

impl<'a> Keeper<'a> {
    fn new(options: &'a Options, stdin: Option<child::Stdin>, inherited: Inherited, report: Report) -> Keeper<'a> {
        Keeper {
            options,
            stdin,
            holdings: Holdings::new(budget::receive_buffer(options), inherited),
            child: None,
            pace: Pace::default(),
            next: clock::now(),
            serving: None,
            last: None,
            watchdog: Watchdog::default(),
            probes: Probes::default(),
            tending: None,
            kept: Kept::default(),
            stillborn: 0,
            stopping: false,
            tried: false,
            out: BTreeSet::new(),
            open_since: None,
            pidfile: None,
            account: Account::open(),
            report,
        }
    }

    async fn live(mut self, mut signals: Signals) -> Result<u8> {
        let (mut probe, mut news, mut beat) = (steady(PROBE), steady(NEWS), self.report.beat());
        loop {
            self.report();
            tokio::select! {
                biased;
                asked = signals.next() => match asked {
                    Asked::Terminate | Asked::Interrupt | Asked::Quit => {
                        self.say_that_it_ends();
                        return self.stop(asked, &mut signals).await;
                    }
                    Asked::Reload | Asked::Upgrade => self.pass_on_if_serving(asked),
                },
                event = next(&mut self.child) => match event {
                    Event::Asks(request) => self.answer(request).await?,
                    Event::Ended(status) => {
                        if let Some(code) = self.bury(status) {
                            return self.finish(code).await;
                        }
                    }
                },
                () = sleep_until(self.next.into()), if self.child.is_none() => self.start_server()?,
                heard = self.probes.heard() => self.judge(&heard),
                status = tended(&mut self.tending) => self.note(status?),
                _ = probe.tick() => self.watch(),
                _ = news.tick() => self.tell(),
                inquirer = self.account.asked() => inquirer.tell(&self.readiness()),
                () = next_beat(&mut beat) => self.report.alive(),
            }
        }
    }

    /// The error is that no server can be started, and that there has been none to wait for.
    fn start_server(&mut self) -> Result<()> {
        match Child::start(self.stdin.as_ref(), clock::now()) {
            Ok(child) => self.child = Some(child),
            Err(error) if self.serving.is_none() => return Err(error).context("cannot start the server"),
            Err(error) => {
                let wait = self.pace.ended(clock::now());
                tracing::error!("cannot start the server ({error}); trying again in {wait:?}");
                self.next = clock::now() + wait;
            }
        }
        Ok(())
    }

    /// The server has ended. Returns the exit code where that is the end of the keeper too.
    fn bury(&mut self, status: io::Result<ExitStatus>) -> Option<u8> {
        let child = self.child.take()?;
        // One that never served for a fault that a restart does not mend, or that was told to end when that happens.
        if let Some(code) = child.leaving.filter(|_| child.serves || self.serving.is_none()) {
            return Some(code);
        }
        if child.dismissed {
            self.kept.wedged += 1;
            if self.tried {
                // It was deaf from the beginning, so the fault may be in the sockets that it got.
                self.holdings.keep(&[], &[]);
            }
        } else {
            self.kept.died += 1;
        }
        let wait = self.pace.ended(clock::now());
        self.next = clock::now() + wait;
        let how = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        self.account.ended(&how);
        self.stillborn += u32::from(self.serving.is_none());
        if self.stillborn >= STILLBORN {
            tracing::error!("the server ended ({how}) before it served, {STILLBORN} times");
            return Some(1);
        }
        let when = if wait.is_zero() { "at once".to_owned() } else { format!("in {wait:?}") };
        tracing::error!("the server ended ({how}); the next one starts {when}, queries wait for it");
        None
    }

    /// Starts probes, and ends a server that is of no use.
    fn watch(&mut self) {
        if self.may_probe() {
            self.probes.ask(clock::now());
        }
        let (Some(child), now) = (&mut self.child, clock::now()) else { return };
        let late = now.saturating_duration_since(child.started) > START;
        let why = match self.watchdog.wedged(now) {
            Some(address) if child.serves => format!("it does not answer at {address}"),
            None if child.serves && late && self.watchdog.is_mute() && !self.tried => {
                // Once: if that does not help, something keeps the probes away, and the server is not to blame.
                self.tried = true;
                format!("it has answered nowhere in {} s", START.as_secs())
            }
            _ if !child.serves && late => format!("it does not serve after {} s", START.as_secs()),
            _ => return,
        };
        if !child.dismissed {
            tracing::error!("the server is ended: {why}");
            child.dismiss();
        }
    }

    /// A probe of a Service address that leaves before the node's rules let it reach our sockets is answered by the
    /// cluster's DNS, and says nothing.
    fn may_probe(&self) -> bool {
        self.tending.is_none() || self.kept.node.is_some()
    }

    /// Takes down what the node looks like. Addresses that were just placed are asked at once, if they have been silent.
    fn note(&mut self, status: Status) {
        let count = |status: &Status, action| status.actions.get(&action).copied().unwrap_or_default();
        let placed = |status: &Status| [Action::LinkUp, Action::AddressAdded].map(|action| count(status, action));
        let changed = self.kept.node.as_ref().map(placed) != Some(placed(&status));
        if changed && !self.probes.are_all_in(&self.watchdog.up()) {
            self.probes.again(clock::now());
        }
        self.kept.node = Some(status);
    }

    /// Takes down what a probe said, and steers clients accordingly.
    fn judge(&mut self, heard: &Probed) {
        self.watchdog.heard(heard.listen, heard.protocol(), &heard.result, clock::now());
        self.tried &= self.watchdog.is_mute();
        self.steer();
    }

    /// Clients come here for the addresses that answer, and for no others.
    fn steer(&mut self) {
        let Some(tending) = &mut self.tending else { return };
        let (steered, now) = (tending.steer(&self.watchdog.up()), clock::now());
        for ip in &steered.lost {
            tracing::error!("nothing answers at {ip}: its clients are sent to the cluster's DNS until something does");
        }
        self.out.extend(steered.lost);
        for ip in steered.gained.iter().filter(|ip| self.out.contains(*ip)) {
            tracing::info!("{ip} answers: its clients come here again");
        }
        self.out.retain(|ip| !steered.gained.contains(ip));
        if !self.out.is_empty() {
            self.open_since.get_or_insert(now);
        } else if let Some(since) = self.open_since.take() {
            self.kept.open_seconds += now.saturating_duration_since(since).as_secs_f64();
        }
    }

    /// Tells the server what is known.
    fn tell(&mut self) {
        let Some(child) = &self.child else { return };
        let mut kept = self.kept.clone();
        if let Some(since) = self.open_since {
            kept.failing_open = true;
            kept.open_seconds += clock::now().saturating_duration_since(since).as_secs_f64();
        }
        child.tell(&News::Kept(kept));
        let probed = self.probes.take();
        if !probed.is_empty() {
            child.tell(&News::Probed(probed));
        }
    }

    /// Says to the service manager how the server does.
    fn report(&mut self) {
        if !self.report.is_heard() {
            return;
        }
        let up = self.watchdog.up();
        let serving = self.serving.as_ref().filter(|_| self.child.as_ref().is_some_and(|child| child.serves));
        let listens = serving.iter().flat_map(|serving| &serving.listens).copied();
        let (answering, silent): (Vec<_>, Vec<_>) = listens.partition(|address| up.contains(address));
        let state = match serving {
            _ if self.stopping => State::Stopping(self.longest_stop()),
            Some(_) => State::Serving { answering: &answering, silent: &silent },
            None => State::Starting { again: self.serving.is_some() },
        };
        self.report.say(state, clock::now());
    }

    /// A server that is starting does not listen to signals yet, and would end. It reads everything anew anyway.
    fn pass_on_if_serving(&self, asked: Asked) {
        let signal = if asked == Asked::Upgrade { Signal::SIGUSR2 } else { Signal::SIGUSR1 };
        self.child.iter().filter(|child| child.serves).for_each(|child| child.signal(signal));
    }

    fn pass_on(&self, signal: Signal) {
        if let Some(child) = &self.child {
            child.signal(signal);
        }
    }
}

fn steady(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

async fn next_beat(beat: &mut Option<Interval>) {
    match beat {
        Some(beat) => drop(beat.tick().await),
        None => std::future::pending().await,
    }
}

async fn next(child: &mut Option<Child>) -> Event {
    match child {
        Some(child) => child.next().await,
        None => std::future::pending().await,
    }
}

async fn tended(tending: &mut Option<Tending>) -> Result<Status> {
    match tending {
        Some(tending) => tending.news().await,
        None => std::future::pending().await,
    }
}
