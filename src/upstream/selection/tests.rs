use super::*;
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};

const MS: Duration = Duration::from_millis(1);

fn candidates(count: u8) -> Vec<Candidate> {
    (0..count).map(|member| Candidate { member, via: Via::Datagram, patience: 100 * MS, trial: false }).collect()
}

fn epoch() -> Instant {
    crate::sys::clock::now()
}

fn rules(start: Instant) -> Rules {
    let deadline = start + 4000 * MS;
    let complete_by = start + 2000 * MS;
    Rules { attempts: MAX_ATTEMPTS, background: false, read_timeout: None, complete_by, budget: deadline, deadline }
}

/// What happens to an attempt, and how long after it was made.
#[derive(Clone, Copy)]
enum Fate {
    Silent,
    Refused,
    Answer(u32),
    /// The server is down.
    Down,
    /// There is no budget for it now.
    Withheld,
    Rcode(u32),
    Truncated(u32),
    Forged(u32),
    Spoiled(u32),
    WithoutEdns(u32),
}

/// Plays an exchange and writes down what was done: `send member via @ms` and how it ended.
fn play(count: u8, change: impl FnOnce(&mut Rules), fate: impl Fn(usize, u8, Via) -> Fate) -> Vec<String> {
    let start = epoch();
    let mut rules = rules(start);
    change(&mut rules);
    let mut selection = Selection::new(&candidates(count), rules, start);
    let mut now = start;
    let mut log = Vec::new();
    let mut coming: Vec<(Instant, usize, Fate)> = Vec::new();
    for _ in 0..100 {
        let at = (now - start).as_millis();
        match selection.step(now) {
            Step::Send { attempt, member, via, why } => {
                let classic = if why == Why::WithoutEdns { " classic" } else { "" };
                log.push(format!("{member} {via:?}{classic} @{at}"));
                match fate(attempt, member, via) {
                    Fate::Silent => {}
                    Fate::Refused => selection.failed(attempt, now),
                    Fate::Down => selection.pass_by(attempt, now),
                    Fate::Withheld => selection.withhold(attempt, now),
                    fate @ (Fate::Answer(after)
                    | Fate::Rcode(after)
                    | Fate::Truncated(after)
                    | Fate::Forged(after)
                    | Fate::Spoiled(after)
                    | Fate::WithoutEdns(after)) => {
                        coming.push((now + after * MS, attempt, fate));
                    }
                }
            }
            Step::Late(attempt) => assert!(selection.is_silent(attempt, now)),
            Step::GiveUp(attempt) => log.push(format!("give up {attempt} @{at}")),
            Step::Wait(until) => {
                assert!(until > now, "a wait that is no wait");
                coming.retain(|(_, attempt, _)| selection.is_open(*attempt));
                coming.sort_by_key(|(when, ..)| *when);
                if coming.first().is_none_or(|(when, ..)| *when > until) {
                    now = until;
                    continue;
                }
                let (when, attempt, fate) = coming.remove(0);
                now = when;
                match fate {
                    Fate::Rcode(_) => selection.set_aside(attempt, now),
                    Fate::Truncated(_) if selection.truncated(attempt, now) => {}
                    Fate::Forged(_) => selection.forged(attempt),
                    Fate::Spoiled(_) => selection.spoiled(attempt),
                    Fate::WithoutEdns(_) if selection.rejects_edns(attempt, now) => {}
                    _ => {
                        log.push(format!("answer {attempt} @{}", (now - start).as_millis()));
                        return log;
                    }
                }
            }
            Step::Finish => {
                log.push(format!("end @{at}"));
                return log;
            }
        }
    }
    panic!("no end: {log:?}");
}

#[test]
fn a_silent_server_is_asked_twice_then_once_over_tcp() {
    let log = play(1, |_| {}, |_, _, _| Fate::Silent);
    assert_eq!(log, ["0 Datagram @0", "0 Datagram @100", "0 Stream @1500", "end @4000"]);
}

#[test]
fn a_closed_port_is_tried_twice_with_a_pause() {
    let log = play(1, |_| {}, |_, _, _| Fate::Refused);
    assert_eq!(log, ["0 Datagram @0", "0 Datagram @100", "end @100"]);
}

#[test]
fn a_refusal_moves_on_at_once_and_silence_after_patience() {
    let log = play(3, |_| {}, |_, member, _| if member == 2 { Fate::Answer(20) } else { Fate::Refused });
    assert_eq!(log, ["0 Datagram @0", "1 Datagram @0", "2 Datagram @0", "answer 2 @20"]);
    let log = play(2, |_| {}, |_, member, _| if member == 1 { Fate::Answer(20) } else { Fate::Silent });
    assert_eq!(log, ["0 Datagram @0", "1 Datagram @100", "answer 1 @120"]);
}

#[test]
fn a_late_answer_to_an_earlier_attempt_still_counts() {
    let log = play(1, |_| {}, |attempt, _, _| if attempt == 0 { Fate::Answer(900) } else { Fate::Silent });
    assert_eq!(log, ["0 Datagram @0", "0 Datagram @100", "answer 0 @900"]);
}

#[test]
fn all_refusing_servers_get_two_tries_and_no_more() {
    let log = play(2, |_| {}, |_, _, _| Fate::Refused);
    assert_eq!(log, ["0 Datagram @0", "1 Datagram @0", "0 Datagram @100", "1 Datagram @100", "end @100"]);
    let log = play(15, |_| {}, |_, _, _| Fate::Refused);
    assert_eq!(log.len(), MAX_ATTEMPTS + 1);
}

#[test]
fn failover_asks_everyone_once_and_keeps_the_last_response() {
    let log = play(3, |_| {}, |_, _, _| Fate::Rcode(10));
    assert_eq!(log, ["0 Datagram @0", "1 Datagram @10", "2 Datagram @20", "end @30"]);
    let log = play(1, |_| {}, |_, _, _| Fate::Rcode(10));
    assert_eq!(log, ["0 Datagram @0", "end @10"]);
}

#[test]
fn failover_does_not_wait_for_the_silent_until_the_deadline() {
    let log = play(2, |_| {}, |_, member, _| if member == 0 { Fate::Rcode(10) } else { Fate::Silent });
    assert_eq!(log, ["0 Datagram @0", "1 Datagram @10", "end @110"]);
}

#[test]
fn truncation_asks_the_same_server_over_tcp() {
    let fate = |_, _, via| if via == Via::Datagram { Fate::Truncated(10) } else { Fate::Answer(30) };
    assert_eq!(play(2, |_| {}, fate), ["0 Datagram @0", "0 Stream @10", "answer 1 @40"]);
    let fate = |_, _, via| if via == Via::Datagram { Fate::Truncated(10) } else { Fate::Refused };
    assert_eq!(play(1, |_| {}, fate), ["0 Datagram @0", "0 Stream @10", "end @10"]);
    let fate = |_, _, via| if via == Via::Datagram { Fate::Truncated(10) } else { Fate::Silent };
    assert_eq!(play(1, |_| {}, fate), ["0 Datagram @0", "0 Stream @10", "end @1510"]);
}

#[test]
fn a_second_truncated_answer_does_not_end_the_wait_for_tcp() {
    // Both were asked, and both say that the answer is too long.
    let fate = |_, member, via| match via {
        Via::Datagram => Fate::Truncated(if member == 0 { 110 } else { 20 }),
        Via::Stream => Fate::Answer(30),
    };
    let log = play(2, |_| {}, fate);
    assert_eq!(log, ["0 Datagram @0", "1 Datagram @100", "0 Stream @110", "answer 2 @140"]);
    // The other one's turn comes when the first does not give the whole.
    let fate = |_, member, via| match (via, member) {
        (Via::Datagram, 0) => Fate::Truncated(110),
        (Via::Datagram, _) => Fate::Truncated(20),
        (Via::Stream, 0) => Fate::Silent,
        (Via::Stream, _) => Fate::Answer(30),
    };
    let log = play(2, |_| {}, fate);
    assert_eq!(log, ["0 Datagram @0", "1 Datagram @100", "0 Stream @110", "1 Stream @1610", "answer 3 @1640"]);
}

#[test]
fn where_tcp_does_not_work_the_others_are_asked_for_the_whole_answer() {
    let beside = |first| {
        move |_, member, via| match (member, via) {
            (0, Via::Datagram) => Fate::Truncated(10),
            (0, Via::Stream) => first,
            _ => Fate::Answer(30),
        }
    };
    let log = play(2, |_| {}, beside(Fate::Refused));
    assert_eq!(log, ["0 Datagram @0", "0 Stream @10", "1 Stream @10", "answer 2 @40"]);
    let log = play(2, |_| {}, beside(Fate::Silent));
    assert_eq!(log, ["0 Datagram @0", "0 Stream @10", "1 Stream @1510", "answer 2 @1540"]);
    // Half an answer is not held back for long; who has no use for it waits on.
    let fate = |_, _, via| if via == Via::Datagram { Fate::Truncated(10) } else { Fate::Silent };
    let log = play(4, |_| {}, fate);
    assert_eq!(log, ["0 Datagram @0", "0 Stream @10", "1 Stream @1510", "end @3010"]);
    let log = play(4, |rules| rules.complete_by = rules.budget, fate);
    assert_eq!(log, ["0 Datagram @0", "0 Stream @10", "1 Stream @1510", "2 Stream @3010", "end @4000"]);
    let refusing = |_, _, via| if via == Via::Datagram { Fate::Truncated(10) } else { Fate::Refused };
    let log = play(3, |_| {}, refusing);
    assert_eq!(log, ["0 Datagram @0", "0 Stream @10", "1 Stream @10", "2 Stream @10", "end @10"]);
}

#[test]
fn who_is_passed_by_takes_nobody_elses_attempt() {
    let fate = |_, member, _| match member {
        0 => Fate::Refused,
        1..=6 => Fate::Down,
        _ => Fate::Answer(20),
    };
    let log = play(8, |_| {}, fate);
    assert_eq!(log.last().unwrap(), "answer 1 @20", "{log:?}");
    // Not even to see whether TCP works.
    let fate = |attempt, _, via| if attempt > 1 && via == Via::Stream { Fate::Down } else { Fate::Silent };
    assert_eq!(play(1, |_| {}, fate), ["0 Datagram @0", "0 Datagram @100", "0 Stream @1500", "end @4000"]);
}

#[test]
fn what_is_withheld_is_put_off_each_time_for_longer() {
    let withheld = |first| move |attempt, _, _| if attempt == 0 { first } else { Fate::Withheld };
    // Whether the one that was asked is silent or has refused, the other may be healthy.
    let log = play(2, |_| {}, withheld(Fate::Silent));
    assert_eq!(
        log,
        [
            "0 Datagram @0",
            "1 Datagram @100",
            "1 Datagram @200",
            "1 Datagram @400",
            "1 Datagram @800",
            "1 Datagram @1600",
            "1 Datagram @3200",
            "end @4000"
        ]
    );
    let log = play(2, |_| {}, withheld(Fate::Refused));
    assert_eq!(log[..4], ["0 Datagram @0", "1 Datagram @0", "1 Datagram @100", "1 Datagram @200"]);
    assert_eq!(log.last().unwrap(), "end @3200");
    // Once more is worth waiting for as long as an answer may still come.
    let log = play(1, |_| {}, withheld(Fate::Silent));
    assert_eq!(log[..4], ["0 Datagram @0", "0 Datagram @100", "0 Datagram @300", "0 Datagram @600"]);
    assert_eq!(log.last().unwrap(), "end @4000");
    let log = play(1, |_| {}, withheld(Fate::Refused));
    assert_eq!(log, ["0 Datagram @0", "0 Datagram @100", "end @100"]);
}

#[test]
fn a_refresh_takes_its_time_until_somebody_waits_for_it() {
    let log = play(2, |rules| rules.background = true, |_, _, _| Fate::Silent);
    assert_eq!(log, ["0 Datagram @0", "1 Datagram @1000", "end @4000"]);
    let start = epoch();
    let rules = Rules { background: true, ..rules(start) };
    let mut selection = Selection::new(&candidates(2), rules, start);
    assert!(matches!(selection.step(start), Step::Send { member: 0, .. }));
    assert_eq!(selection.step(start + 150 * MS), Step::Wait(start + 1000 * MS));
    selection.awaited();
    assert_eq!(selection.step(start + 150 * MS), Step::Late(0));
    assert!(matches!(selection.step(start + 150 * MS), Step::Send { member: 1, .. }));
    assert_eq!(selection.step(start + 150 * MS), Step::Wait(start + 250 * MS));
    assert_eq!(selection.step(start + 350 * MS), Step::Late(1));
    assert!(matches!(selection.step(start + 350 * MS), Step::Send { member: 0, .. }), "a third time");
}

#[test]
fn forgery_ends_udp_for_this_exchange() {
    let fate = |_, _, via| if via == Via::Datagram { Fate::Forged(10) } else { Fate::Answer(30) };
    assert_eq!(play(2, |_| {}, fate), ["0 Datagram @0", "0 Stream @10", "answer 1 @40"]);
    let fate = |_, _, via| if via == Via::Datagram { Fate::Forged(10) } else { Fate::Refused };
    let log = play(2, |_| {}, fate);
    assert_eq!(log, ["0 Datagram @0", "0 Stream @10", "1 Stream @10", "0 Stream @110", "1 Stream @110", "end @110"]);
}

#[test]
fn a_spoiled_attempt_is_worth_its_patience_and_no_more() {
    let log = play(1, |_| {}, |_, _, _| Fate::Spoiled(10));
    assert_eq!(log, ["0 Datagram @0", "0 Datagram @100", "end @300"]);
    let log = play(2, |_| {}, |_, member, _| if member == 0 { Fate::Spoiled(10) } else { Fate::Answer(20) });
    assert_eq!(log, ["0 Datagram @0", "1 Datagram @100", "answer 1 @120"]);
    let log = play(1, |_| {}, |attempt, _, _| if attempt == 0 { Fate::Spoiled(10) } else { Fate::Silent });
    assert_eq!(log, ["0 Datagram @0", "0 Datagram @100", "0 Stream @1500", "end @4000"]);
}

#[test]
fn without_edns_the_same_server_is_asked_once_more_at_once() {
    let reject_first = |fate| move |attempt, _, _| if attempt == 0 { Fate::WithoutEdns(10) } else { fate };
    let log = play(2, |_| {}, reject_first(Fate::Answer(20)));
    assert_eq!(log, ["0 Datagram @0", "0 Datagram classic @10", "answer 1 @30"]);
    let log = play(1, |_| {}, reject_first(Fate::Truncated(20)));
    assert_eq!(log[..3], ["0 Datagram @0", "0 Datagram classic @10", "0 Stream @30"]);
    let log = play(1, |_| {}, |_, _, _| Fate::WithoutEdns(10));
    assert_eq!(log, ["0 Datagram @0", "0 Datagram classic @10", "end @20"]);
    let log = play(2, |_| {}, |_, _, _| Fate::WithoutEdns(120));
    assert_eq!(
        log,
        ["0 Datagram @0", "1 Datagram @100", "0 Datagram classic @120", "1 Datagram classic @220", "end @340"]
    );
    let log = play(1, |rules| rules.attempts = 1, reject_first(Fate::Answer(20)));
    assert_eq!(log, ["0 Datagram @0", "0 Datagram classic @10", "answer 1 @30"]);
}

#[test]
fn what_rejects_edns_and_then_says_nothing_is_not_waited_for_to_the_end() {
    let reject = |attempt, _, _| if attempt == 0 { Fate::WithoutEdns(10) } else { Fate::Silent };
    assert_eq!(play(1, |_| {}, reject), ["0 Datagram @0", "0 Datagram classic @10", "end @1510"]);
    let log = play(
        2,
        |_| {},
        |attempt, member, via| if member == 1 { Fate::Answer(20) } else { reject(attempt, member, via) },
    );
    assert_eq!(log, ["0 Datagram @0", "0 Datagram classic @10", "1 Datagram @110", "answer 2 @130"]);
}

#[test]
fn read_timeout_ends_an_attempt_and_the_exchange_with_the_last_one() {
    let log = play(1, |rules| rules.read_timeout = Some(300 * MS), |_, _, _| Fate::Silent);
    assert_eq!(log, ["0 Datagram @0", "0 Datagram @100", "give up 0 @300", "give up 1 @400", "end @400"]);
}

#[test]
fn the_cap_on_attempts_holds_and_leaves_room_for_tcp_after_truncation() {
    let log = play(3, |rules| rules.attempts = 1, |_, _, _| Fate::Refused);
    assert_eq!(log, ["0 Datagram @0", "end @0"]);
    let fate = |_, _, via| if via == Via::Datagram { Fate::Truncated(10) } else { Fate::Answer(30) };
    let log = play(3, |rules| rules.attempts = 1, fate);
    assert_eq!(log, ["0 Datagram @0", "0 Stream @10", "answer 1 @40"]);
}

#[test]
fn whatever_happens_the_limits_hold_and_it_ends() {
    for seed in 0..2000 {
        let mut choice = StdRng::seed_from_u64(seed);
        let servers = choice.random_range(1..=15);
        let salt = choice.next_u64();
        let log = play(
            servers,
            |rules| rules.read_timeout = choice.random_bool(0.5).then_some(500 * MS),
            |attempt, _, via| match StdRng::seed_from_u64(salt ^ attempt as u64).random_range(0..8) {
                0 => Fate::Silent,
                1 => Fate::Refused,
                2 => Fate::Rcode(700),
                3 if via == Via::Datagram => Fate::Truncated(30),
                4 if via == Via::Datagram => Fate::Forged(150),
                5 if via == Via::Datagram => Fate::Spoiled(20),
                6 => Fate::WithoutEdns(250),
                _ => Fate::Silent,
            },
        );
        let sends: Vec<&str> =
            log.iter().filter_map(|line| line.split(" @").next()).filter(|line| line.contains("am")).collect();
        assert!((1..=MAX_ATTEMPTS).contains(&sends.len()), "seed {seed}: {log:?}");
        for send in &sends {
            let same = sends.iter().filter(|other| *other == send).count();
            // Without EDNS it is another question, for which there is one attempt.
            let limit = if send.ends_with("classic") { 1 } else { 2 };
            assert!(same <= limit, "seed {seed}: {send} {same} times in {log:?}");
        }
    }
}

#[test]
fn nothing_is_sent_after_the_budget_but_open_attempts_are_waited_for() {
    let short = |rules: &mut Rules| rules.budget -= 2500 * MS;
    let log = play(1, short, |_, _, _| Fate::Silent);
    assert_eq!(log, ["0 Datagram @0", "0 Datagram @100", "end @4000"], "no TCP at 1500");
    let log = play(2, short, |attempt, _, _| if attempt == 0 { Fate::Answer(3900) } else { Fate::Silent });
    assert_eq!(log.last().unwrap(), "answer 0 @3900");
    let sent: Vec<_> = log.iter().filter(|line| line.contains("am @")).collect();
    assert_eq!(sent, ["0 Datagram @0", "1 Datagram @100", "0 Datagram @200", "1 Datagram @400"]);
}

#[test]
fn a_failure_with_no_budget_left_to_ask_again_is_the_end() {
    let tight = |rules: &mut Rules| rules.budget -= 3950 * MS;
    assert_eq!(play(1, tight, |_, _, _| Fate::Refused), ["0 Datagram @0", "end @0"]);
    // TC=1 that comes too late to be completed is the answer.
    let log = play(2, tight, |_, _, _| Fate::Truncated(60));
    assert_eq!(log, ["0 Datagram @0", "answer 0 @60"]);
    let log = play(2, tight, |_, _, _| Fate::Forged(60));
    assert_eq!(log, ["0 Datagram @0", "end @60"]);
    let log = play(2, tight, |_, _, _| Fate::Rcode(60));
    assert_eq!(log, ["0 Datagram @0", "end @60"]);
}
