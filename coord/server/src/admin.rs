//! The admin endpoint, without the socket: HTTP requests in, answers out.
//!
//! Three pages for machines and people on the same host: `/metrics` for Prometheus, `/healthz` for
//! supervisors, `/shards` for a look inside. Read only, one request a connection, no keep-alive.
//! The hard case is a peer that sends anything at all: a request head has a bound, what does not
//! parse is answered and closed, and nothing it says is echoed.
//!
//! Invariants:
//! - A1  An [`Exchange`] holds at most [`HEAD_BYTES_MAX`] bytes of a request.
//! - A2  After an answer the exchange takes no more bytes; the connection is closed.
//!
//! Bounds: linear in the head (each feed parses again, at most 8 KiB); an answer is as long as the
//! shards are many. Not here: sockets, deadlines, the number of connections (`control.rs`).
//! Tests: hostile input below; `tools/fuzz` feeds the same [`Exchange`].

use ringway_core::Span;
use serde::{Deserialize, Serialize};

use crate::metrics::{ShardView, prometheus_text};
use crate::quotas::NamespaceView;

/// Bytes of a request line and its headers.
pub const HEAD_BYTES_MAX: usize = 8 * 1024;
/// Headers of one request.
const HEADERS_MAX: usize = 64;
/// Connections at once; more wait in the backlog.
pub const ADMIN_CONNS_MAX: usize = 64;
/// From the accept to the end of the answer; then the connection is closed, whatever its state.
pub const ADMIN_DEADLINE: Span = Span::from_s(5);

/// What the endpoint shows. The server implements it over its shards' counters.
pub trait NodeView: Send + Sync + 'static {
    /// Every shard's numbers, by shard.
    fn shards(&self) -> Vec<ShardView>;
    /// How the namespaces that have a quota stand.
    fn namespaces(&self) -> Vec<NamespaceView>;
    /// Whether names are granted.
    fn health(&self) -> Health;
}

/// Whether the server grants names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum Health {
    /// Yes.
    Ready,
    /// Not yet: leases of its life before an unclean stop may still run.
    Starting {
        /// How long that lasts.
        wait_ms: u64,
    },
    /// No more: it ends its sessions and stops.
    Draining {
        /// How long that lasts, at most.
        left_ms: u64,
    },
    /// No longer leases than now, no new epoch: the state directory cannot be written.
    Degraded {
        /// Writes that failed.
        failures: u64,
    },
}

impl Health {
    /// Whether names are granted now. A degraded server still grants within what is persisted.
    pub fn is_ready(self) -> bool {
        matches!(self, Health::Ready | Health::Degraded { .. })
    }
}

/// What `/shards` answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ShardsPage {
    /// Whether names are granted.
    pub health: Health,
    /// Every shard.
    pub shards: Vec<ShardView>,
    /// The namespaces that have a quota.
    #[serde(default)]
    pub namespaces: Vec<NamespaceView>,
}

/// One connection's request, as far as it has arrived.
#[derive(Debug, Default)]
pub struct Exchange {
    head: Vec<u8>,
    answered: bool,
}

impl Exchange {
    /// Takes what arrived. `Some` is the whole answer: send it and close. `None`: wait for more.
    pub fn feed(&mut self, bytes: &[u8], view: &dyn NodeView) -> Option<Vec<u8>> {
        if self.answered {
            return None;
        }
        let room = HEAD_BYTES_MAX - self.head.len();
        self.head.extend_from_slice(&bytes[..bytes.len().min(room)]);
        let answer = match parse(&self.head) {
            Parsed::Request { path, head_only } => page(path, view).encode(head_only),
            Parsed::Partial if self.head.len() < HEAD_BYTES_MAX => return None,
            Parsed::Partial => Answer::plain(431, "the request is too long").encode(false),
            Parsed::Wrong(answer) => answer.encode(false),
        };
        self.answered = true;
        self.head = Vec::new();
        Some(answer)
    }
}

enum Parsed<'a> {
    Request { path: &'a str, head_only: bool },
    Partial,
    Wrong(Answer),
}

fn parse(head: &[u8]) -> Parsed<'_> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Parsed::Partial,
        Err(httparse::Error::TooManyHeaders) => {
            return Parsed::Wrong(Answer::plain(431, "the request has too many headers"));
        }
        Err(_) => return Parsed::Wrong(Answer::plain(400, "this is not HTTP/1.1")),
    }
    let head_only = match request.method {
        Some("GET") => false,
        Some("HEAD") => true,
        _ => return Parsed::Wrong(Answer::plain(405, "this endpoint only answers GET")),
    };
    let target = request.path.unwrap_or_default();
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    Parsed::Request { path, head_only }
}

fn page(path: &str, view: &dyn NodeView) -> Answer {
    match path {
        "/metrics" => {
            let body = prometheus_text(view.health(), view.shards(), view.namespaces());
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            Answer { status: 200, kind, body }
        }
        "/healthz" => healthz(view.health()),
        "/shards" => {
            let page = ShardsPage {
                health: view.health(),
                shards: view.shards(),
                namespaces: view.namespaces(),
            };
            let body = serde_json::to_string_pretty(&page).expect("plain numbers");
            Answer { status: 200, kind: "application/json", body }
        }
        "/" => Answer::plain(200, "ringway: /metrics /healthz /shards"),
        _ => Answer::plain(404, "there is /metrics, /healthz and /shards"),
    }
}

fn healthz(health: Health) -> Answer {
    let status = if health.is_ready() { 200 } else { 503 };
    let body = serde_json::to_string(&health).expect("plain numbers");
    Answer { status, kind: "application/json", body }
}

struct Answer {
    status: u16,
    kind: &'static str,
    body: String,
}

impl Answer {
    fn plain(status: u16, text: &str) -> Self {
        Self { status, kind: "text/plain; charset=utf-8", body: format!("{text}\n") }
    }

    fn encode(&self, head_only: bool) -> Vec<u8> {
        let Answer { status, kind, body } = self;
        let reason = match status {
            200 => "OK",
            400 => "Bad Request",
            404 => "Not Found",
            405 => "Method Not Allowed",
            431 => "Request Header Fields Too Large",
            _ => "Service Unavailable",
        };
        let allow = if *status == 405 { "Allow: GET, HEAD\r\n" } else { "" };
        let mut text = format!(
            "HTTP/1.1 {status} {reason}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\
             {allow}Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\
             Connection: close\r\n\r\n",
            body.len()
        );
        if !head_only {
            text.push_str(body);
        }
        text.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::metrics::ShardMetrics;

    struct Node(Health);

    impl NodeView for Node {
        fn shards(&self) -> Vec<ShardView> {
            let metrics = ShardMetrics::default();
            metrics.names.set(42);
            vec![metrics.snapshot(0, Some(1))]
        }

        fn namespaces(&self) -> Vec<NamespaceView> {
            let (names, names_max) = (3, 5);
            vec![NamespaceView { namespace: "orders".to_owned(), names, names_max }]
        }

        fn health(&self) -> Health {
            self.0
        }
    }

    fn ask(request: &[u8], health: Health) -> Option<String> {
        let answer = Exchange::default().feed(request, &Node(health));
        answer.map(|bytes| String::from_utf8(bytes).expect("text"))
    }

    fn get(path: &str, health: Health) -> (u16, String) {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        let answer = ask(request.as_bytes(), health).expect("whole request");
        let (head, body) = answer.split_once("\r\n\r\n").expect("head and body");
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
        (head[9..12].parse().expect("status"), body.to_owned())
    }

    /// A supervisor gets 200 only while names are granted; otherwise it is told how long to wait.
    #[test]
    fn health_says_how_long() {
        assert_eq!(get("/healthz", Health::Ready), (200, r#"{"state":"ready"}"#.to_owned()));
        let (status, body) = get("/healthz", Health::Starting { wait_ms: 1_250 });
        assert_eq!((status, body.as_str()), (503, r#"{"state":"starting","wait_ms":1250}"#));
        let (status, body) = get("/healthz?verbose=1", Health::Draining { left_ms: 9 });
        assert_eq!((status, body.as_str()), (503, r#"{"state":"draining","left_ms":9}"#));
        assert_eq!(get("/healthz", Health::Degraded { failures: 2 }).0, 200);
    }

    /// The JSON of `/shards` reads back into what the CLI shows.
    #[test]
    fn shards_read_back() {
        let (status, body) = get("/shards", Health::Ready);
        let page: ShardsPage = serde_json::from_str(&body).expect("our own JSON");
        assert_eq!((status, page.shards[0].names, page.shards[0].core), (200, 42, Some(1)));
        assert!(get("/metrics", Health::Ready).1.contains("ringway_shard_names{shard=\"0\"} 42"));
    }

    /// A request may arrive a byte at a time; what comes after its end is not read.
    #[test]
    fn requests_arrive_in_pieces() {
        let request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
        let node = Node(Health::Ready);
        let mut exchange = Exchange::default();
        for byte in &request[..request.len() - 1] {
            assert_eq!(exchange.feed(&[*byte], &node), None);
        }
        assert!(exchange.feed(b"\nGET /shards HTTP/1.1\r\n\r\n", &node).is_some());
        assert_eq!(exchange.feed(b"GET /shards HTTP/1.1\r\n\r\n", &node), None, "A2");
    }

    /// HEAD gets the length and no body; other methods and pages are refused by name.
    #[test]
    fn other_questions_are_refused() {
        let head = ask(b"HEAD /healthz HTTP/1.1\r\n\r\n", Health::Ready).expect("answered");
        assert!(head.contains("Content-Length: 17\r\n") && head.ends_with("\r\n\r\n"), "{head}");
        let post = ask(b"POST /metrics HTTP/1.1\r\n\r\n", Health::Ready).expect("answered");
        assert!(post.starts_with("HTTP/1.1 405 ") && post.contains("Allow: GET, HEAD"), "{post}");
        assert_eq!(get("/etc/passwd", Health::Ready).0, 404);
        assert_eq!(get("/", Health::Ready).0, 200);
    }

    /// An endless head, too many headers, other protocols: an error each, never more memory.
    #[test]
    fn hostile_requests_are_bounded() {
        let status =
            |bytes: &[u8]| ask(bytes, Health::Ready).map(|answer| answer[9..12].to_owned());
        let endless = [b"GET /".as_slice(), &[b'a'; 2 * HEAD_BYTES_MAX]].concat();
        assert_eq!(status(&endless).as_deref(), Some("431"));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(HEADERS_MAX + 1));
        assert_eq!(status(many.as_bytes()).as_deref(), Some("431"));
        assert_eq!(status(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").as_deref(), Some("400"));
        assert_eq!(status(b"\x16\x03\x01\x02\x00\x01").as_deref(), Some("400"));
        assert_eq!(status(b"\xB1\x01\x00\x00").as_deref(), Some("400"));
        assert_eq!(status(b"GET /healthz HTTP/1.1\r\nA\0: b\r\n\r\n").as_deref(), Some("400"));
        assert_eq!(status(b""), None);
    }

    proptest! {
        /// Whatever arrives in whatever pieces: no panic, at most one answer, bounded memory.
        #[test]
        fn anything_may_arrive(pieces in prop::collection::vec(any::<Vec<u8>>(), 0..20)) {
            let mut exchange = Exchange::default();
            let node = Node(Health::Ready);
            let answers = pieces.iter().filter_map(|piece| exchange.feed(piece, &node)).count();
            prop_assert!(answers <= 1);
            prop_assert!(exchange.head.len() <= HEAD_BYTES_MAX);
        }
    }
}
