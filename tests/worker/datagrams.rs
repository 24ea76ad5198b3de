//! UDP.

use super::*;
use std::thread;

#[test]
fn a_reply_at_once_overtakes_one_that_is_waited_for() {
    let lab = Lab::start();
    let client = lab.udp();
    client.send(&query(1, &held(1))).unwrap();
    client.send(&query(2, NOW)).unwrap();
    assert_eq!(receive_id(&client), 2);
    lab.release(1);
    assert_eq!(receive_id(&client), 1);
}

#[test]
fn replies_come_from_the_address_asked() {
    for (bind, asked) in [("0.0.0.0:0", "127.0.0.7"), ("[::]:0", "127.0.0.8"), ("[::]:0", "::1"), ("[::1]:0", "::1")] {
        let lab = Lab::with(bind, Limits::default());
        // A connected socket hears the address it asked and no other.
        let client = lab.udp_to(asked.parse::<IpAddr>().unwrap());
        client.send(&query(1, &held(1))).unwrap();
        client.send(&query(2, NOW)).unwrap();
        assert_eq!(receive_id(&client), 2, "{bind} at {asked}");
        lab.release(1);
        assert_eq!(receive_id(&client), 1, "{bind} at {asked}");
    }
}

#[test]
fn long_queries_are_read_whole_and_longer_ones_are_malformed() {
    let lab = Lab::start();
    let client = lab.udp();
    client.send(&padded(1, NOW, 4096)).unwrap();
    let whole = receive(&client);
    assert_eq!((header::id(&whole), header::rcode(&whole)), (1, Rcode::REFUSED));
    client.send(&padded(2, NOW, 4097)).unwrap();
    let cut = receive(&client);
    assert_eq!((header::id(&cut), header::rcode(&cut)), (2, Rcode::FORMERR));
}

#[test]
fn a_message_without_a_header_and_a_response_are_met_with_silence() {
    let lab = Lab::start();
    let client = lab.udp();
    let mut response = query(1, NOW);
    response[2] |= header::QR;
    client.send(&response).unwrap();
    client.send(&[1, 2, 3]).unwrap();
    client.send(&[]).unwrap();
    client.send(&query(2, NOW)).unwrap();
    assert_eq!(receive_id(&client), 2);
    let dropped = |reason| lab.metric(("dnslet_datagrams_dropped_total", reason));
    assert_eq!((dropped("response"), dropped("short")), (1, 2));
}

#[test]
fn beyond_the_bound_questions_are_refused_and_counted_not_kept() {
    let lab = Lab::with("127.0.0.1:0", Limits { inflight: 2, ..Limits::default() });
    let client = lab.udp();
    for id in 1..=3 {
        client.send(&query(id, &held(id))).unwrap();
    }
    let refused = receive(&client);
    assert_eq!((header::id(&refused), header::rcode(&refused)), (3, Rcode::SERVFAIL));
    assert_eq!(lab.metric(SHED), 1);
    assert_eq!(lab.metric(IN_FLIGHT), 2);
    lab.release(2);
    let mut ids = [receive_id(&client), receive_id(&client)];
    ids.sort_unstable();
    assert_eq!(ids, [1, 2]);
    lab.await_metric(IN_FLIGHT, 0);
}

#[test]
fn clients_that_have_gone_do_not_stop_the_loop() {
    let lab = Lab::start();
    for id in 0..100 {
        let client = lab.udp();
        let name = if id % 2 == 0 { NOW.to_owned() } else { held(id) };
        client.send(&query(id, &name)).unwrap();
    }
    lab.release(50);
    lab.await_metric(IN_FLIGHT, 0);
    let client = lab.udp();
    client.send(&query(7, NOW)).unwrap();
    assert_eq!(receive_id(&client), 7);
}

/// Every exchange is one arrival at an otherwise empty socket, from several sides, so that arrivals fall on every moment
/// of the worker's loop. One lost wake-up stops a client for good.
#[test]
fn no_wake_up_is_lost() {
    let lab = Lab::start();
    thread::scope(|scope| {
        for side in 0..4u16 {
            let client = lab.udp();
            scope.spawn(move || {
                for id in 0..10_000u16 {
                    // One, or a burst around the size of a batch.
                    let burst = if id % 64 == 0 { 30 + side } else { 1 };
                    for _ in 0..burst {
                        client.send(&query(id, NOW)).unwrap();
                    }
                    for _ in 0..burst {
                        assert_eq!(receive_id(&client), id);
                    }
                }
            });
        }
    });
}

#[test]
fn what_finds_no_room_in_the_queue_is_counted() {
    const SENT: u64 = 5000;
    const LOST: (&str, &str) = ("dnslet_datagrams_dropped_total", "queue");
    let (lab, listener) = (Lab::start(), sockets("127.0.0.1:0"));
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(listener.local).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    socket2::SockRef::from(&client).set_recv_buffer_size(4 << 20).unwrap();
    // Nobody reads yet.
    for id in 0..SENT {
        client.send(&query(id as u16, NOW)).unwrap();
    }
    wait(lab.worker().add(vec![listener])).unwrap();
    receive(&client);
    let lost = lab.metric(LOST);
    assert!((1..SENT).contains(&lost), "{lost}");
    for _ in lost + 1..SENT {
        receive(&client);
    }
    assert_eq!(lab.metric(LOST), lost, "each once");
}
