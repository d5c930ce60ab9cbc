//! A small honest server for tests: it owns names like the real one, natively and over RESP, a
//! thread a connection, and can be told to misbehave.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringway_coord_proto::wire::{
    FRAME_HEADER_BYTES, FrameHeader, FrameWriter, KIND_REPLY, Preface, RawOp, next_op, op,
    put_data, put_owner, status,
};
use ringway_core::{SessionId, Token};

/// What goes wrong, if anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Fault {
    #[default]
    None,
    /// Every hundredth register is refused.
    Refuses,
    /// The reply to the tenth request has the wrong number.
    Misnumbers,
    /// The tenth request is the last one.
    Closes,
    /// The tenth request waits this long.
    Stalls(Duration),
    /// Renewals of gateways find no session.
    Forgets,
}

type Names = Arc<Mutex<HashMap<Vec<u8>, u64>>>;

/// A running mock. Its threads end with their connections, the accepting one with the test.
pub(crate) struct Mock {
    pub(crate) addr: SocketAddr,
    names: Names,
    renewals: Arc<AtomicU64>,
}

impl Mock {
    pub(crate) fn start(fault: Fault) -> Mock {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port of the kernel's choice");
        let addr = listener.local_addr().expect("bound");
        let names: Names = Arc::default();
        let renewals: Arc<AtomicU64> = Arc::default();
        let (table, renewed) = (Arc::clone(&names), Arc::clone(&renewals));
        std::thread::spawn(move || {
            for (stream, session) in listener.incoming().zip(1..) {
                let Ok(stream) = stream else { continue };
                let (names, renewals) = (Arc::clone(&table), Arc::clone(&renewed));
                let peer = Peer { stream, names, renewals, session, fault, requests: 0 };
                std::thread::spawn(move || peer.serve());
            }
        });
        Mock { addr, names, renewals }
    }

    /// Names that are owned now.
    pub(crate) fn owned(&self) -> usize {
        self.names.lock().expect("not poisoned").len()
    }

    /// Sessions renewed so far.
    pub(crate) fn renewals(&self) -> u64 {
        self.renewals.load(Ordering::SeqCst)
    }
}

struct Peer {
    stream: TcpStream,
    names: Names,
    renewals: Arc<AtomicU64>,
    session: u64,
    fault: Fault,
    requests: u64,
}

impl Peer {
    /// Ends when the client goes away, which is what every client does.
    fn serve(mut self) -> Option<()> {
        let mut first = [0];
        self.stream.peek(&mut first).ok()?;
        if first[0] == 0xB1 { self.serve_native() } else { self.serve_resp() }
    }

    fn serve_native(&mut self) -> Option<()> {
        let mut preface = [0; 16];
        self.stream.read_exact(&mut preface).ok()?;
        Preface::parse(&preface).expect("a good preface");
        self.stream.write_all(&Preface::OURS.encode()).ok()?;
        loop {
            let mut frame = vec![0; FRAME_HEADER_BYTES];
            self.stream.read_exact(&mut frame).ok()?;
            let header = FrameHeader::parse(&frame).expect("valid").expect("whole");
            let mut body = vec![0; header.len - FRAME_HEADER_BYTES];
            self.stream.read_exact(&mut body).ok()?;
            let mut sequence = header.sequence;
            if self.misbehave()? && self.fault == Fault::Misnumbers {
                sequence += 1;
            }
            let mut out = vec![];
            let mut writer = FrameWriter::begin(&mut out, KIND_REPLY, 0, sequence);
            let mut ops = body.as_slice();
            while let Some(raw) = next_op(&mut ops) {
                self.answer(raw, &mut out);
                writer.add(1);
            }
            assert!(ops.is_empty() && writer.count() == header.count);
            writer.finish(&mut out);
            self.stream.write_all(&out).ok()?;
        }
    }

    /// Whether this is the request that the fault hits; `None` ends the connection.
    fn misbehave(&mut self) -> Option<bool> {
        self.requests += 1;
        let hit = self.requests == 10;
        match self.fault {
            Fault::Closes if hit => return None,
            Fault::Stalls(time) if hit => std::thread::sleep(time),
            _ => {}
        }
        Some(hit)
    }

    fn answer(&mut self, raw: RawOp<'_>, out: &mut Vec<u8>) {
        let owner = |status, session, out: &mut Vec<u8>| {
            put_owner(out, status, SessionId(session), Token(1));
        };
        let mut names = self.names.lock().expect("not poisoned");
        match raw.code {
            op::QUERY => match names.get(raw.body) {
                Some(session) => owner(status::OWNED_EPHEMERAL, *session, out),
                None => out.push(status::FREE),
            },
            op::REGISTER if self.fault == Fault::Refuses && names.len() % 100 == 99 => {
                out.push(status::FULL);
            }
            op::REGISTER => {
                let holder = *names.entry(raw.body.to_vec()).or_insert(self.session);
                let mine = holder == self.session;
                owner(if mine { status::GRANTED_EPHEMERAL } else { status::HELD }, holder, out);
            }
            op::RELEASE if names.get(raw.body) == Some(&self.session) => {
                names.remove(raw.body);
                out.push(status::OK);
            }
            op::RELEASE => out.push(status::NOTOWNER),
            op::OPEN => {
                let mut opened = raw.body[..8].to_vec();
                opened.extend_from_slice(&[7; 16]);
                opened.extend_from_slice(&raw.body[8..12]);
                opened.extend_from_slice(&[1, 0, 0, 0, 0]);
                put_data(out, status::DATA, &opened);
            }
            op::RENEW if self.fault == Fault::Forgets => out.push(status::NOSESSION),
            op::RENEW => {
                let proven = raw.body.len() == 24 && raw.body[8..] == [7; 16];
                assert!(raw.body.is_empty() || proven);
                self.renewals.fetch_add(1, Ordering::SeqCst);
                out.push(status::OK);
            }
            _ => out.push(status::UNKNOWN_OP),
        }
    }

    fn serve_resp(&mut self) -> Option<()> {
        let mut reader = std::io::BufReader::new(self.stream.try_clone().ok()?);
        loop {
            let args = read_command(&mut reader)?;
            self.misbehave()?;
            let text: Vec<_> = args.iter().map(Vec::as_slice).collect();
            let reply = self.command(&text);
            self.stream.write_all(reply.as_bytes()).ok()?;
        }
    }

    fn command(&self, args: &[&[u8]]) -> String {
        let mut names = self.names.lock().expect("not poisoned");
        let mut register = |name: &[u8]| {
            let holder = *names.entry(name.to_vec()).or_insert(self.session);
            holder == self.session
        };
        match args {
            [b"SET", name, _, b"NX", ..] => {
                if register(name) {
                    "+OK\r\n".into()
                } else {
                    "$-1\r\n".into()
                }
            }
            [b"PORT.REGISTER", all @ ..] => {
                let each: Vec<_> = all
                    .iter()
                    .map(|name| {
                        format!("*3\r\n:{}\r\n$2\r\n0a\r\n:17\r\n", u8::from(register(name)))
                    })
                    .collect();
                if each.len() == 1 { each.concat() } else { array(&each) }
            }
            [b"GET" | b"PORT.QUERY", all @ ..] => {
                let of = |name: &&[u8]| match names.get(*name) {
                    Some(_) => "$5\r\n0a:17\r\n".to_owned(),
                    None => "$-1\r\n".to_owned(),
                };
                let each: Vec<_> = all.iter().map(of).collect();
                if each.len() == 1 { each.concat() } else { array(&each) }
            }
            [b"DEL" | b"PORT.RELEASE", all @ ..] => {
                let done = all.iter().filter(|name| names.remove(**name).is_some()).count();
                format!(":{done}\r\n")
            }
            _ => "-ERR unknown command\r\n".into(),
        }
    }
}

fn array(each: &[String]) -> String {
    format!("*{}\r\n{}", each.len(), each.concat())
}

fn read_command(reader: &mut impl std::io::BufRead) -> Option<Vec<Vec<u8>>> {
    let line = |kind: u8, reader: &mut dyn std::io::BufRead| -> Option<usize> {
        let mut line = vec![];
        reader.read_until(b'\n', &mut line).ok()?;
        let digits = line.strip_prefix(&[kind])?.strip_suffix(b"\r\n")?;
        std::str::from_utf8(digits).ok()?.parse().ok()
    };
    let count = line(b'*', reader)?;
    (0..count)
        .map(|_| {
            let len = line(b'$', reader)?;
            let mut arg = vec![0; len + 2];
            reader.read_exact(&mut arg).ok()?;
            assert_eq!(arg[len..], *b"\r\n");
            arg.truncate(len);
            Some(arg)
        })
        .collect()
}
