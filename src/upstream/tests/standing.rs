//! What `dnslet_upstream_up` says: 0 exactly while somebody passes the upstream by.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use tokio::time::sleep;

use super::super::Upstreams;
use super::super::testing::*;

const MS: Duration = Duration::from_millis(1);

fn up(upstreams: &Upstreams, to: SocketAddr) -> u64 {
    value(upstreams, &format!("dnslet_upstream_up{{to=\"{to}\"}}"))
}

fn suspicions(upstreams: &Upstreams, to: SocketAddr) -> u64 {
    value(upstreams, &format!("dnslet_upstream_suspicions_total{{to=\"{to}\"}}"))
}

#[tokio::test]
async fn a_suspect_is_up_and_told_by_its_own_counter() {
    let responder = Responder::start(silent).await;
    let (upstreams, to) = (Upstreams::new(), responder.socket);
    let pool = pool(&[to], &upstreams, |spec| spec.max_fails = 0);
    for _ in 0..2 {
        ask_for(&pool, "www.example.org.", 1500 * MS).await.unwrap_err();
    }
    assert!(suspicions(&upstreams, to) > 0 && pool.members()[0].health().is_suspect());
    assert_eq!(up(&upstreams, to), 1);
}

#[tokio::test]
async fn it_is_zero_while_any_forward_passes_it_by_and_no_longer() {
    let dead = Arc::new(AtomicBool::new(true));
    let switch = dead.clone();
    let responder =
        Responder::start(move |arrival| if switch.load(SeqCst) { silent(arrival) } else { answering(arrival) }).await;
    let (upstreams, to) = (Upstreams::new(), responder.socket);
    let never = pool(&[to], &upstreams, |spec| spec.max_fails = 0);
    ask_for(&never, "www.example.org.", 1500 * MS).await.unwrap_err();
    ask_for(&never, "www.example.org.", 1500 * MS).await.unwrap_err();
    assert_eq!((never.members()[0].failed_checks(), up(&upstreams, to)), (0, 1), "never down with max_fails 0");
    let sometimes = pool(&[to], &upstreams, |spec| spec.max_fails = 2);
    ask_for(&sometimes, "www.example.org.", 300 * MS).await.unwrap_err();
    loop {
        let before = sometimes.is_down();
        let told = up(&upstreams, to);
        if before == sometimes.is_down() {
            assert_eq!(told, u64::from(!before), "after {} failed checks", sometimes.members()[0].failed_checks());
        }
        if before {
            break;
        }
        sleep(MS).await;
    }
    assert!(!never.is_down());
    drop(sometimes);
    assert_eq!(up(&upstreams, to), 1, "nobody passes it by any more");
    let sometimes = pool(&[to], &upstreams, |spec| spec.max_fails = 2);
    assert_eq!(up(&upstreams, to), 0, "a reload knows");
    dead.store(false, SeqCst);
    while sometimes.is_down() {
        sleep(MS).await;
    }
    assert_eq!(up(&upstreams, to), 1);
}
