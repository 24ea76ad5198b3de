//! The scripted upstream's end of one TCP or TLS connection: read by one thread, written by several.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection};

use super::time;

pub struct Line {
    tcp: TcpStream,
    /// Of TLS. For both it keeps writers apart.
    state: Mutex<Option<ServerConnection>>,
}

impl Line {
    /// The handshake, if there is to be one, takes place while the line is read.
    pub fn new(tcp: TcpStream, tls: Option<&Arc<ServerConfig>>) -> Line {
        tcp.set_nodelay(true).unwrap_or_default();
        let connection =
            |config: &Arc<ServerConfig>| ServerConnection::new(Arc::clone(config)).expect("a usable config");
        Line { tcp, state: Mutex::new(tls.map(connection)) }
    }

    /// Writes it all. A client that has left is nobody's loss.
    pub fn write(&self, bytes: &[u8]) {
        self.put(&mut self.lock(), bytes).unwrap_or_default();
    }

    /// Writes octet by octet; nobody else writes meanwhile.
    pub fn trickle(&self, bytes: &[u8], pause: Duration) {
        let mut state = self.lock();
        for byte in bytes {
            time::pass(pause);
            if self.put(&mut state, &[*byte]).is_err() {
                return;
            }
        }
    }

    /// Ends it in order.
    pub fn close(&self) {
        if let Some(tls) = &mut *self.lock() {
            tls.send_close_notify();
            self.flush(tls).unwrap_or_default();
        }
        self.tcp.shutdown(Shutdown::Both).unwrap_or_default();
    }

    /// From now on the end of the last handle is an RST.
    pub fn will_reset(&self) {
        socket2::SockRef::from(&self.tcp).set_linger(Some(Duration::ZERO)).expect("a TCP socket");
    }

    fn put(&self, state: &mut Option<ServerConnection>, bytes: &[u8]) -> io::Result<()> {
        match state {
            None => (&self.tcp).write_all(bytes),
            Some(tls) => {
                tls.writer().write_all(bytes)?;
                self.flush(tls)
            }
        }
    }

    fn flush(&self, tls: &mut ServerConnection) -> io::Result<()> {
        while tls.wants_write() {
            tls.write_tls(&mut &self.tcp)?;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Option<ServerConnection>> {
        self.state.lock().expect("no panic under the lock")
    }
}

/// Reads a line; waits outside of its lock.
pub struct Input {
    line: Arc<Line>,
    plain: VecDeque<u8>,
}

impl Input {
    pub fn of(line: &Arc<Line>) -> Input {
        Input { line: Arc::clone(line), plain: VecDeque::new() }
    }

    /// What of the octets is meant for the reader.
    fn take(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let mut state = self.line.lock();
        let Some(tls) = &mut *state else {
            self.plain.extend(bytes);
            return Ok(());
        };
        while !bytes.is_empty() {
            tls.read_tls(&mut bytes)?;
            tls.process_new_packets().map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
            let mut text = Vec::new();
            match tls.reader().read_to_end(&mut text) {
                Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
                _ => self.plain.extend(text),
            }
        }
        self.line.flush(tls)
    }
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.plain.is_empty() {
            let mut raw = [0; 4096];
            let length = (&self.line.tcp).read(&mut raw)?;
            if length == 0 {
                return Ok(0);
            }
            self.take(&raw[..length])?;
        }
        self.plain.read(buffer)
    }
}
