//! What processes asked about a sample of names, and what they were answered, through the checkers:
//! owners and tokens by the simulator's, metadata by its versions here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ringway_client::Client;
use ringway_core::{SessionId, Token};
use ringway_sim::swarm::history::{End, Entry, Seen, Verb, check};

use super::{Notes, Worker};
use crate::support::{Proxy, Setup, until};

/// How often each kind of thing happens.
const ROUNDS: u64 = 5;

/// All that some processes asked and heard.
#[derive(Default)]
struct Told {
    entries: BTreeMap<String, Vec<Entry>>,
    ends: BTreeMap<SessionId, End>,
    /// The sessions of each node, and when they were asked for: opening one may end those before.
    opened: BTreeMap<u64, Vec<(u64, SessionId)>>,
    metadata: BTreeMap<String, Metadata>,
    /// Requests that nobody knows the outcome of.
    unknown: usize,
}

/// What was set and read of one name.
#[derive(Default)]
struct Metadata {
    /// By value, which nobody sets twice: the call, and its answer with the version.
    set: BTreeMap<String, (u64, Option<(u64, u32)>)>,
    read: Vec<Read>,
}

#[derive(Clone, Debug)]
struct Read {
    token: Token,
    version: u32,
    value: String,
    call: u64,
    ret: u64,
}

/// A question, and who asked it when.
struct Question {
    by: SessionId,
    client: usize,
    call: u64,
    words: Vec<String>,
}

impl Told {
    /// The lines of all processes. A session is a client of its own: it acts for no other.
    fn gather(files: &[PathBuf]) -> Told {
        let mut told = Told::default();
        let lines: Vec<Vec<String>> =
            files.iter().map(|path| Notes::at(path.clone()).look().to_vec()).collect();
        // First the sessions, because others give names to them.
        lines.iter().for_each(|lines| told.sessions(lines));
        for sessions in told.opened.values_mut() {
            sessions.sort_unstable();
        }
        for sessions in told.opened.values() {
            for pair in sessions.windows(2) {
                let end = told.ends.get_mut(&pair[0].1).expect("it was opened");
                end.possible_from = end.possible_from.min(pair[1].0);
            }
        }
        lines.iter().for_each(|lines| told.questions(lines));
        told
    }

    fn sessions(&mut self, lines: &[String]) {
        let (mut asked, mut session) = ((0, 0), SessionId(0));
        for line in lines {
            let words: Vec<&str> = line.split(' ').collect();
            let number = |at: usize| words[at].parse::<u64>().expect("a number");
            match words[0] {
                "open" => asked = (number(1), number(2)),
                "opened" => {
                    session = SessionId(number(2));
                    let client = self.ends.len();
                    let end = End { possible_from: 0, certain_by: u64::MAX, client };
                    self.ends.insert(session, end);
                    self.opened.entry(asked.1).or_default().push((asked.0, session));
                }
                // Without renewals it may end at that moment, and never before.
                "valid" => {
                    let end = self.ends.get_mut(&session).expect("it was opened");
                    end.possible_from = end.possible_from.max(number(1));
                }
                "closing" => {
                    let end = self.ends.get_mut(&session).expect("it was opened");
                    end.possible_from = end.possible_from.min(number(1));
                }
                _ => {}
            }
        }
    }

    fn questions(&mut self, lines: &[String]) {
        let (mut by, mut open) = (SessionId(0), None);
        for line in lines {
            let words: Vec<&str> = line.split(' ').collect();
            match words[0] {
                "opened" => by = SessionId(words[2].parse().expect("a number")),
                "call" => {
                    let client = self.ends[&by].client;
                    let call = words[1].parse().expect("a number");
                    let words = words[2..].iter().map(|word| (*word).to_owned()).collect();
                    open = Some(Question { by, client, call, words });
                }
                "ret" => {
                    let question = open.take().expect("it was asked");
                    let ret = words[1].parse().expect("a number");
                    self.answered(&question, ret, &words[2..]);
                }
                "lost" => self.unknown(&open.take().expect("it was asked")),
                _ => {}
            }
        }
        // It was killed before it could say more.
        open.iter().for_each(|question| self.unknown(question));
    }

    fn unknown(&mut self, question: &Question) {
        self.unknown += 1;
        self.answered(question, u64::MAX, &[]);
    }

    /// What a question and its answer, which is nothing if it is not known, say about its name.
    fn answered(&mut self, question: &Question, ret: u64, said: &[&str]) {
        let Question { by, client, call, words } = question;
        let number = |at: usize| said.get(at).and_then(|word| word.parse::<u64>().ok());
        let seen = match said {
            ["owner" | "meta", ..] => {
                let (session, token) = (number(1).expect("a session"), number(2).expect("a token"));
                Seen::Owner(SessionId(session), Token(token))
            }
            ["free"] => Seen::Free,
            ["released"] => Seen::Released,
            ["notowner"] => Seen::NotOwner,
            // It was not done, and says nothing about the name.
            ["nosession"] => return,
            _ => Seen::Nothing,
        };
        let entry = |by: SessionId, client: usize, verb: Verb, seen: Seen| Entry {
            client,
            by: Some(by),
            verb,
            call: *call,
            ret,
            seen,
            wish: None,
        };
        let (by, client) = (*by, *client);
        let entries = match words[0].as_str() {
            "query" | "meta" => vec![entry(by, client, Verb::Query, seen)],
            "register" => vec![entry(by, client, Verb::Register, seen)],
            "release" => vec![entry(by, client, Verb::Release(None), seen)],
            "set" if seen == Seen::NotOwner => vec![entry(by, client, Verb::Release(None), seen)],
            "set" => vec![],
            "transfer" => {
                // One releases, and another gets it in the same step.
                let to = SessionId(words[2].parse().expect("a session"));
                let given = if matches!(seen, Seen::Owner(..)) { Seen::Released } else { seen };
                let mut both = vec![entry(by, client, Verb::Release(None), given)];
                let other = self.ends.get(&to).filter(|_| seen != Seen::NotOwner);
                both.extend(other.map(|end| entry(to, end.client, Verb::Receive, seen)));
                both
            }
            other => panic!("asked {other}"),
        };
        self.entries.entry(words[1].clone()).or_default().extend(entries);
        let metadata = self.metadata.entry(words[1].clone()).or_default();
        match (words[0].as_str(), said) {
            ("meta", ["meta", _, token, version, value]) => {
                let token = Token(token.parse().expect("a token"));
                let version = version.parse().expect("a version");
                let value = (*value).to_owned();
                metadata.read.push(Read { token, version, value, call: *call, ret });
            }
            ("set", ["done", version]) => {
                let version: u32 = version.parse().expect("a version");
                let before: u32 = words[2].parse().expect("a version");
                assert_eq!(version, before + 1, "V3: set only behind the version asked for");
                metadata.set.insert(words[3].clone(), (*call, Some((ret, version))));
            }
            ("set", ["conflict", version, _]) => {
                assert_ne!(*version, words[2], "V3: it had the version asked for");
            }
            ("set", []) => drop(metadata.set.insert(words[3].clone(), (*call, None))),
            _ => {}
        }
    }

    fn judge(&self) -> Result<(), String> {
        for (name, entries) in &self.entries {
            check(entries, &self.ends, true).map_err(|why| format!("{name}: {why}"))?;
        }
        for (name, metadata) in &self.metadata {
            metadata.check().map_err(|why| format!("{name}: {why}"))?;
        }
        Ok(())
    }
}

impl Metadata {
    /// Rules, within one grant:
    /// - V1  Each value was set by somebody, and has one version, which its setter was told.
    /// - V2  Versions only grow: nothing older is read or set after an answer.
    fn check(&self) -> Result<(), String> {
        let mut values: BTreeMap<&str, (Token, u32)> = BTreeMap::new();
        // Of each grant: from when to when, which version, and whether it was set.
        let mut seen: BTreeMap<Token, Vec<(u64, u64, u32, bool)>> = BTreeMap::new();
        for read in &self.read {
            seen.entry(read.token).or_default().push((read.ret, read.call, read.version, false));
            if read.version == 0 {
                continue;
            }
            let set = self.set.get(&read.value).filter(|(call, _)| *call < read.ret);
            let (_, answer) = set.ok_or_else(|| format!("V1: nobody set {read:?}"))?;
            let known = values.entry(&read.value).or_insert((read.token, read.version));
            let told = answer.map_or(read.version, |(_, version)| version);
            if *known != (read.token, read.version) || told != read.version {
                return Err(format!("V1: {read:?}, and {known:?}, set as {answer:?}"));
            }
        }
        for (value, (token, _)) in &values {
            if let (call, Some((ret, version))) = self.set[*value] {
                seen.entry(*token).or_default().push((ret, call, version, true));
            }
        }
        for (token, mut seen) in seen {
            seen.sort_unstable();
            let newest: Vec<(u64, u32)> = seen
                .iter()
                .scan(0, |newest, (ret, _, version, _)| {
                    *newest = (*newest).max(*version);
                    Some((*ret, *newest))
                })
                .collect();
            for (_, call, version, is_set) in seen {
                let before = newest.partition_point(|(ret, _)| *ret < call);
                let before = newest[..before].last().map_or(0, |(_, version)| *version);
                if version < before || (is_set && version == before) {
                    return Err(format!("V2: {version} under {token} at {call}, after {before}"));
                }
            }
        }
        Ok(())
    }
}

/// Processes ask for names, give them back and to each other, and set their metadata, over wires
/// that break, while they are killed or stand still for longer than their leases. Whatever each of
/// them was told fits one order of events; and histories that were tampered with do not.
#[test]
fn what_processes_are_told_of_names_is_linearizable() {
    let server = Setup::new().shards(2).start();
    let proxy = Proxy::start(server.addr);
    let dir = tempfile::tempdir().expect("temporary directory");
    let mut files: Vec<PathBuf> = Vec::new();
    let mut start = |what: &str, node: u64| {
        let path = dir.path().join(format!("notes-{}", files.len()));
        files.push(path.clone());
        let addr = if node == 0 { server.addr } else { proxy.addr };
        (Worker::start(what, addr, node, &path), Notes::at(path))
    };
    let kinds = ["session", "session", "session", "plain", "plain"];
    let mut workers: Vec<_> = kinds.iter().zip(0..).map(|(what, node)| start(what, node)).collect();
    for round in 0..ROUNDS {
        all_are_answered(&mut workers);
        proxy.cut();
        all_are_answered(&mut workers);

        // One is killed; the next one of its node ends its session, or it has to run out.
        let at = (round % 5) as usize;
        workers[at].0.kill();
        let node = workers[at].0.node + if round.is_multiple_of(2) { 0 } else { 5 };
        workers[at] = start(kinds[at], node);

        let at = ((round + 2) % 5) as usize;
        workers[at].0.pause();
        until_over(&mut server.client(), &mut workers[at].1);
        workers[at].0.go_on();
    }
    all_are_answered(&mut workers);
    drop(workers);
    let told = Told::gather(&files);
    told.judge().unwrap_or_else(|why| keep(&files, &why));
    let entries: usize = told.entries.values().map(Vec::len).sum();
    let (names, sessions) = (told.entries.len(), told.ends.len());
    println!("{entries} entries of {names} names, {sessions} sessions, {} unknown", told.unknown);
    assert!(told.unknown > 0 && entries > 500, "faults were felt, and there was much to judge");
    forgeries_are_found(told);
    server.stop();
}

/// From now on everybody asks something and is answered, a few times.
fn all_are_answered(workers: &mut [(Worker, Notes)]) {
    let from: Vec<usize> = workers.iter_mut().map(|(_, notes)| notes.look().len()).collect();
    until("all are answered", || {
        let mut all = workers.iter_mut().zip(&from);
        let done = all.all(|((_, notes), from)| {
            notes.look()[*from..].iter().filter(|line| line.starts_with("ret ")).count() >= 20
        });
        done.then_some(())
    });
}

/// The session that the process has is over.
fn until_over(client: &mut Client, notes: &mut Notes) {
    let opened = notes.look().iter().rev().find_map(|line| line.strip_prefix("opened "));
    let Some(session) = opened.and_then(|words| words.split(' ').nth(1)?.parse().ok()) else {
        return;
    };
    let session = SessionId(session);
    until("its session ends", || client.session(session).is_err().then_some(()));
}

/// A history that does not hold is kept, to be looked at.
fn keep(files: &[PathBuf], why: &str) {
    for path in files {
        let name = path.file_name().expect("a file");
        let _ = std::fs::copy(path, Path::new(env!("CARGO_TARGET_TMPDIR")).join(name));
    }
    panic!("{why}; the notes are in {}", env!("CARGO_TARGET_TMPDIR"));
}

/// The judge is not blind: what did not happen does not pass.
fn forgeries_are_found(mut told: Told) {
    let last = |told: &Told| {
        let all = told.entries.values().flatten().filter(|entry| entry.ret != u64::MAX);
        all.map(|entry| entry.ret).max().expect("there are some")
    };
    let end = last(&told);
    let owners: BTreeMap<Token, SessionId> = told.entries["sample/0"]
        .iter()
        .filter_map(|entry| match entry.seen {
            Seen::Owner(session, token) => Some((token, session)),
            _ => None,
        })
        .collect();
    let (first, newest) = (owners.first_key_value(), owners.last_key_value());
    let (Some((old, before)), Some((new, _))) = (first, newest) else { panic!("never owned") };
    let query = |call: u64, session: SessionId, token: Token| Entry {
        client: 0,
        by: None,
        verb: Verb::Query,
        call,
        ret: call + 1,
        seen: Seen::Owner(session, token),
        wish: None,
    };
    // The first owner is seen once more at the end; the newest token is somebody else's.
    for forged in [query(end + 1, *before, *old), query(end + 1, SessionId(1), *new)] {
        told.entries.get_mut("sample/0").expect("it was asked about").push(forged);
        let why = told.judge().expect_err("it never happened");
        assert!(why.contains("L1") || why.contains("L2"), "{why}");
        told.entries.get_mut("sample/0").expect("it was asked about").pop();
    }
    // If leases never ran out and nobody had closed, nothing could have gone to another.
    let ends = told.ends.clone();
    told.ends.values_mut().for_each(|end| end.possible_from = u64::MAX);
    let why = told.judge().expect_err("names of ended sessions were granted");
    assert!(why.contains("L3"), "{why}");
    told.ends = ends;
    told.judge().expect("as it was");
    let (name, read) = told
        .metadata
        .iter()
        .find_map(|(name, all)| Some((name.clone(), all.read.iter().find(|r| r.version > 0)?)))
        .map(|(name, read)| (name, read.clone()))
        .expect("somebody read what another set");
    let late = Read { version: 0, value: "-".into(), call: end + 1, ret: end + 2, ..read.clone() };
    let other = Read { version: read.version + 1, ..read };
    for (forged, rule) in [(late, "V2"), (other, "V1")] {
        told.metadata.get_mut(&name).expect("it is there").read.push(forged);
        let why = told.judge().expect_err("it never happened");
        assert!(why.contains(rule), "{why}");
        told.metadata.get_mut(&name).expect("it is there").read.pop();
    }
}
