//! A server of one connection at a time that says what a test tells it to: for what has to happen
//! at one moment, which a real server does not do on demand. It writes the wire format by hand.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

/// An op that came.
pub(crate) struct Seen {
    pub(crate) code: u8,
    pub(crate) flags: u8,
    pub(crate) body: Vec<u8>,
}

/// What the mock says: replies to the ops of a frame, and notices behind them.
#[derive(Default)]
pub(crate) struct Says {
    pub(crate) replies: Vec<u8>,
    pub(crate) notices: Vec<(u8, Vec<u8>)>,
}

/// Answers sessions and the ends of watches itself, and asks `answer` for everything else.
pub(crate) fn serve(mut answer: impl FnMut(&Seen, &mut Says) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port of the kernel's choice");
    let addr = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let _ = converse(&mut stream, &mut answer);
        }
    });
    addr
}

fn converse(
    stream: &mut TcpStream,
    answer: &mut dyn FnMut(&Seen, &mut Says),
) -> std::io::Result<()> {
    let mut preface = [0; 16];
    stream.read_exact(&mut preface)?;
    stream.write_all(&[0xB1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0])?;
    loop {
        let mut header = [0; 16];
        stream.read_exact(&mut header)?;
        let len = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let mut body = vec![0; len - 16];
        stream.read_exact(&mut body)?;
        let mut says = Says::default();
        let mut rest = body.as_slice();
        while let [code, flags, low, high, tail @ ..] = rest {
            let (body, tail) = tail.split_at(usize::from(u16::from_le_bytes([*low, *high])));
            let seen = Seen { code: *code, flags: *flags, body: body.to_vec() };
            match seen.code {
                0x10 => opened(seen.flags & 1, &mut says.replies),
                0x11 | 0x12 | 0x41 => says.replies.push(0),
                0x18 => data(&[0; 16], &mut says.replies),
                _ => answer(&seen, &mut says),
            }
            rest = tail;
        }
        let count = u16::from_le_bytes([header[4], header[5]]);
        let sequence = u64::from_le_bytes(header[8..].try_into().expect("eight bytes"));
        send(stream, 1, sequence, count, &says.replies)?;
        let mut notices = vec![];
        for (code, body) in &says.notices {
            notices.extend_from_slice(&[*code, 0]);
            notices.extend_from_slice(&(body.len() as u16).to_le_bytes());
            notices.extend_from_slice(body);
        }
        if !notices.is_empty() {
            send(stream, 2, 0, says.notices.len() as u16, &notices)?;
        }
    }
}

fn send(
    stream: &mut TcpStream,
    kind: u8,
    sequence: u64,
    count: u16,
    body: &[u8],
) -> std::io::Result<()> {
    let mut frame = ((body.len() + 16) as u32).to_le_bytes().to_vec();
    frame.extend_from_slice(&count.to_le_bytes());
    frame.extend_from_slice(&[kind, 0]);
    frame.extend_from_slice(&sequence.to_le_bytes());
    frame.extend_from_slice(body);
    stream.write_all(&frame)
}

pub(crate) fn data(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(0x80);
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// Session 77 with a lease of 10 s, in epoch 1.
fn opened(resumed: u8, out: &mut Vec<u8>) {
    let mut body = 77u64.to_le_bytes().to_vec();
    body.extend_from_slice(&[3; 16]);
    body.extend_from_slice(&10_000u32.to_le_bytes());
    body.extend_from_slice(&1u32.to_le_bytes());
    body.push(resumed);
    data(&body, out);
}

/// WATCH has begun anew, with a cursor of one shard.
pub(crate) fn watching(out: &mut Vec<u8>) {
    data(&[&[0, 1, 0, 1, 0, 0, 0][..], &5u64.to_le_bytes()].concat(), out);
}

/// The body of a STATE of session 9.
pub(crate) fn state(watch: &[u8], token: u64, name: &[u8]) -> Vec<u8> {
    [watch, &[0], &9u64.to_le_bytes()[..], &token.to_le_bytes(), name].concat()
}

/// The body of an EVENT about session 9.
pub(crate) fn event(watch: &[u8], kind: u8, at: u64, token: u64, name: &[u8]) -> Vec<u8> {
    let place = [&[0, 0, kind, 1, 0, 0, 0][..], &at.to_le_bytes()].concat();
    let owner = [9u64.to_le_bytes(), token.to_le_bytes()].concat();
    [watch, &place, &owner, &[name.len() as u8], name].concat()
}
