//! Listeners that come and go, configurations that change, and the end.

use super::*;

#[test]
fn a_drain_answers_what_is_in_flight_and_then_ends() {
    let mut lab = Lab::start();
    let (client, mut stream) = (lab.udp(), lab.tcp());
    client.send(&query(1, &held(1))).unwrap();
    send(&mut stream, 2, &held(2));
    lab.await_metric(IN_FLIGHT, 2);
    let mut idle = lab.tcp();
    send(&mut idle, 3, NOW);
    assert_eq!(next_id(&mut idle), Some(3));
    let worker = lab.worker.take().unwrap();
    worker.drain(clock::now() + PATIENCE);
    assert!(is_over(&mut idle));
    lab.await_metric((CLOSED, "shutdown"), 1);
    lab.release(2);
    assert_eq!(receive_id(&client), 1);
    assert_eq!(next_id(&mut stream), Some(2));
    assert!(is_over(&mut stream));
    wait(worker.ended());
    worker.join().unwrap();
}

#[test]
fn datagrams_are_answered_for_as_long_as_the_socket_is_open() {
    let mut lab = Lab::start();
    let (first, second) = (lab.udp(), lab.udp());
    first.send(&query(1, &held(1))).unwrap();
    lab.await_metric(IN_FLIGHT, 1);
    let worker = lab.worker.take().unwrap();
    worker.drain(clock::now() + PATIENCE);
    for id in 2..100 {
        second.send(&query(id, NOW)).unwrap();
        assert_eq!(receive_id(&second), id);
    }
    second.send(&query(100, &held(100))).unwrap();
    lab.await_metric(IN_FLIGHT, 2);
    lab.release(2);
    assert_eq!(receive_id(&first), 1);
    assert_eq!(receive_id(&second), 100);
    worker.join().unwrap();
}

#[test]
fn a_drain_finishes_messages_under_way() {
    let mut lab = Lab::start();
    let mut stream = lab.tcp();
    let message = framed(&query(1, NOW));
    send(&mut stream, 9, NOW);
    assert_eq!(next_id(&mut stream), Some(9));
    stream.write_all(&message[..5]).unwrap();
    // By the time the worker has read this, those five octets have arrived too.
    let mut other = lab.tcp();
    send(&mut other, 8, &held(8));
    lab.await_metric(IN_FLIGHT, 1);
    let worker = lab.worker.take().unwrap();
    worker.drain(clock::now() + PATIENCE);
    stream.write_all(&message[5..]).unwrap();
    assert_eq!(next_id(&mut stream), Some(1));
    assert!(is_over(&mut stream));
    lab.release(1);
    assert_eq!(next_id(&mut other), Some(8));
    worker.join().unwrap();
}

#[test]
fn a_drain_empties_the_queue_of_datagrams() {
    let mut lab = Lab::start();
    let client = lab.udp();
    for id in 0..200 {
        client.send(&query(id, NOW)).unwrap();
    }
    let worker = lab.worker.take().unwrap();
    worker.drain(clock::now() + PATIENCE);
    for id in 0..200 {
        assert_eq!(receive_id(&client), id);
    }
    worker.join().unwrap();
}

#[test]
fn a_drain_answers_what_connections_have_brought_even_those_not_yet_accepted() {
    for _ in 0..20 {
        let mut lab = Lab::start();
        let mut streams: Vec<TcpStream> = (0..8).map(|_| lab.tcp()).collect();
        for stream in &mut streams {
            send(stream, 1, NOW);
            assert_eq!(next_id(stream), Some(1));
        }
        streams.extend((0..8).map(|_| lab.tcp()));
        streams.iter_mut().for_each(|stream| send(stream, 2, NOW));
        let worker = lab.worker.take().unwrap();
        worker.drain(clock::now() + PATIENCE);
        for stream in &mut streams {
            assert_eq!(next_id(stream), Some(2));
            assert!(is_over(stream));
        }
        drop(streams);
        worker.join().unwrap();
    }
}

#[test]
fn a_drain_answers_what_comes_while_a_connection_waits_for_an_answer() {
    let mut lab = Lab::start();
    let mut stream = lab.tcp();
    send(&mut stream, 1, &held(1));
    lab.await_metric(IN_FLIGHT, 1);
    let worker = lab.worker.take().unwrap();
    worker.drain(clock::now() + PATIENCE);
    for id in 2..20 {
        send(&mut stream, id, NOW);
        assert_eq!(next_id(&mut stream), Some(id));
    }
    lab.release(1);
    assert_eq!(next_id(&mut stream), Some(1));
    assert!(is_over(&mut stream));
    // One that crosses the end is not answered; the connection ends in order all the same.
    send(&mut stream, 20, NOW);
    assert!(is_over(&mut stream));
    drop(stream);
    worker.join().unwrap();
}

#[test]
fn everything_ends_by_the_deadline() {
    let mut lab = Lab::start();
    let (client, mut stream) = (lab.udp(), lab.tcp());
    client.send(&query(1, &held(1))).unwrap();
    send(&mut stream, 2, &held(2));
    lab.await_metric(IN_FLIGHT, 2);
    let worker = lab.worker.take().unwrap();
    worker.drain(clock::now());
    worker.join().unwrap();
    assert!(is_over(&mut stream));
}

#[test]
fn listeners_come_and_go_and_the_others_notice_nothing() {
    let lab = Lab::start();
    let (client, mut stream) = (lab.udp(), lab.tcp());
    client.send(&query(1, &held(1))).unwrap();
    send(&mut stream, 2, &held(2));
    lab.await_metric(IN_FLIGHT, 2);
    let second = sockets("127.0.0.1:0");
    let address = second.local;
    wait(lab.worker().add(vec![second])).unwrap();
    let other = UdpSocket::bind("127.0.0.1:0").unwrap();
    other.connect(address).unwrap();
    other.set_read_timeout(Some(PATIENCE)).unwrap();
    other.send(&query(3, NOW)).unwrap();
    assert_eq!(receive_id(&other), 3);
    let mut leaving = TcpStream::connect(address).unwrap();
    leaving.set_read_timeout(Some(PATIENCE)).unwrap();
    send(&mut leaving, 4, &held(4));
    lab.await_metric(IN_FLIGHT, 3);
    lab.worker().remove(vec![address]);
    lab.release(3);
    assert_eq!(next_id(&mut leaving), Some(4));
    assert!(is_over(&mut leaving));
    // The listening socket goes in its own time.
    let end = clock::now() + PATIENCE;
    while TcpStream::connect(address).is_ok() {
        assert!(clock::now() < end, "nobody listens any more");
    }
    assert_eq!(receive_id(&client), 1);
    assert_eq!(next_id(&mut stream), Some(2));
    send(&mut stream, 5, NOW);
    assert_eq!(next_id(&mut stream), Some(5));
}

#[test]
fn a_new_configuration_is_in_force_for_the_next_question() {
    let lab = Lab::start();
    let (client, mut stream) = (lab.udp(), lab.tcp());
    let mut rcodes = || {
        client.send(&query(1, NOW)).unwrap();
        send(&mut stream, 1, NOW);
        [header::rcode(&receive(&client)), header::rcode(&next(&mut stream).unwrap())]
    };
    assert_eq!(rcodes(), [Rcode::REFUSED; 2]);
    // Another address comes first now: the index of this one changes.
    lab.reconfigure(lab.address, "a:1 {\n bind 127.0.0.1\n whoami\n}\nnow:PORT {\n BIND\n whoami\n}");
    assert_eq!(rcodes(), [Rcode::NOERROR; 2]);
    lab.reconfigure(lab.address, "");
    assert_eq!(rcodes(), [Rcode::REFUSED; 2]);
    // An address that the newest does not know is served by the last that did.
    lab.reconfigure("127.0.0.1:1".parse().unwrap(), "now:PORT {\n BIND\n whoami\n}");
    assert_eq!(rcodes(), [Rcode::REFUSED; 2]);
}

#[test]
fn an_ended_worker_says_so() {
    let mut lab = Lab::start();
    let worker = lab.worker.take().unwrap();
    worker.stop();
    wait(worker.ended());
    assert!(wait(worker.add(Vec::new())).is_err());
    worker.join().unwrap();
}

#[test]
fn a_panic_costs_one_question() {
    let lab = Lab::start();
    let odd = Listener { listen: 99, ..sockets("127.0.0.1:0") };
    let address = odd.local;
    wait(lab.worker().add(vec![odd])).unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.connect(address).unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    for id in [1, 2] {
        // No configuration has so many addresses, and the resolver may rely on that.
        client.send(&query(id, NOW)).unwrap();
        let reply = receive(&client);
        assert_eq!((header::id(&reply), header::rcode(&reply)), (id, Rcode::SERVFAIL));
        send(&mut stream, id, NOW);
        let reply = next(&mut stream).unwrap();
        assert_eq!((header::id(&reply), header::rcode(&reply)), (id, Rcode::SERVFAIL));
    }
    let good = lab.udp();
    good.send(&query(3, NOW)).unwrap();
    assert_eq!(header::rcode(&receive(&good)), Rcode::REFUSED);
    assert_eq!(lab.metric(("coredns_panics_total", "")), 4);
}

#[test]
fn a_client_that_waits_for_a_flight_of_a_worker_that_ends_is_answered_all_the_same() {
    let mut lab = Lab::start();
    let first = lab.udp();
    first.send(&query(1, &held(1))).unwrap();
    lab.await_metric(IN_FLIGHT, 1);
    let other = Worker::start(0, &lab.setup).unwrap();
    let listener = sockets("127.0.0.1:0");
    let second = UdpSocket::bind("127.0.0.1:0").unwrap();
    second.connect(listener.local).unwrap();
    second.set_read_timeout(Some(PATIENCE)).unwrap();
    wait(other.add(vec![listener])).unwrap();
    second.send(&query(2, &held(1))).unwrap();
    lab.await_metric(("dnslet_flights_joined_total", ""), 1);
    let worker = lab.worker.replace(other).unwrap();
    worker.stop();
    worker.join().unwrap();
    lab.release(1);
    let reply = receive(&second);
    assert_eq!((header::id(&reply), header::rcode(&reply)), (2, Rcode::NOERROR));
}
