//! One user, one owner: processes share all users among them, each user is one process's; a process
//! dies, and the others take its users over; a balancer moves some.
//!
//! ```text
//! cargo run --release -p ringway-client --example owners -- 127.0.0.1:7400 1000000 10
//! ```
//!
//! The command starts the processes, lets one die, has 5000 users moved, and checks that every user
//! has exactly one owner and that what each process believes to own is what the server says.
//!
//! Every user is a name, `user/17`. Nobody decides who owns what: a process claims what falls to it
//! among those that live, and what is another's stays so, because a claim takes nothing from
//! anybody. Who lives is known by a watch on `workers/`, where each process owns a name: when its
//! session ends, that name is free together with all its users.

use std::collections::BTreeMap;
use std::env::{args, current_exe};
use std::error::Error;
use std::io::{BufRead, BufReader, Lines, Write, stdin};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ringway_client::engine::{Event, WatchItem};
use ringway_client::receive::Events;
use ringway_client::{ChangeKind, Registered, Session};
use ringway_core::{SessionId, Token};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// How long a process that died, or is cut off, keeps its users.
const LEASE: Duration = Duration::from_secs(2);
/// The pause before a user is claimed again whose owner does not live any more.
const AGAIN: Duration = Duration::from_millis(5);
/// How many users the balancer moves.
const MOVED: usize = 5000;

fn main() -> Result<()> {
    let words: Vec<String> = args().skip(1).collect();
    match words.as_slice() {
        [address, users, processes] => conduct(address, users.parse()?, processes.parse()?),
        [worker, address, number, users] if worker == "worker" => {
            work(address, number.parse()?, users.parse()?)
        }
        _ => Err("usage: owners ADDRESS USERS PROCESSES".into()),
    }
}

// ---- A process that owns users.

/// What a process believes to own: user by user, the token under which it does. It uses the token
/// for whatever it writes about that user, as `lock.rs` does.
type View = Arc<Mutex<BTreeMap<u64, Token>>>;

struct Worker {
    session: Session,
    users: u64,
    view: View,
}

/// Does what it is told line by line, and follows who else lives.
fn work(address: &str, number: u64, users: u64) -> Result<()> {
    let session = Session::builder().node(number).lease(LEASE).connect(address)?;
    let view = View::default();
    follow_gifts(&session, &view);
    let worker = Arc::new(Worker { session, users, view });
    worker.session.register(&[format!("workers/{number}")])?.remove(0)?;
    println!("session {}", worker.session.id().0);
    for line in stdin().lines() {
        let line = line?;
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["begin"] => {
                let worker = Arc::clone(&worker);
                std::thread::spawn(move || {
                    if let Err(error) = worker.follow_the_living(number) {
                        eprintln!("process {number} claims no more: {error}");
                        std::process::exit(1);
                    }
                });
            }
            ["move", to] => {
                let (moved, took) = worker.give(MOVED, SessionId(to.parse()?))?;
                println!("moved {moved} {}", took.as_micros());
            }
            ["count"] => println!("has {}", worker.view().len()),
            ["report"] => println!("owns {}", digest(worker.view().iter().map(|(u, t)| (*u, *t)))),
            other => return Err(format!("told {other:?}").into()),
        }
    }
    Ok(())
}

impl Worker {
    fn view(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Token>> {
        self.view.lock().expect("no thread dies with it")
    }

    /// Claims what falls to it whenever the others have become more or fewer.
    fn follow_the_living(&self, number: u64) -> Result<()> {
        let mut living: BTreeMap<u64, SessionId> = BTreeMap::new();
        let mut watch = self.session.watch_prefix("workers/");
        let mut all = true;
        loop {
            let item = if all { watch.recv() } else { watch.recv_timeout(AGAIN) };
            match item {
                Some(WatchItem::Snapshot(owned)) => {
                    let living_now = owned.into_iter().map(|owned| (owned.name, owned.session));
                    living =
                        living_now.filter_map(|(name, is)| Some((number_in(&name)?, is))).collect();
                }
                Some(WatchItem::Change(change)) => {
                    let other = number_in(&change.owned.name).ok_or("a worker has a number")?;
                    match change.kind {
                        ChangeKind::Acquired => living.insert(other, change.owned.session),
                        _ => living.remove(&other),
                    };
                }
                Some(WatchItem::Ended(end)) => return Err(format!("{end:?}").into()),
                Some(_) => continue,
                None if all => return Ok(()),
                None => {}
            }
            all = match living.keys().position(|other| *other == number) {
                Some(place) => self.claim(place as u64, &living)?,
                None => true,
            };
        }
    }

    /// Claims every user that falls to it and is not its own; whether all of them have an owner
    /// that lives. Thousands share a frame, and several frames are on their way at once, without
    /// this having to see to it.
    fn claim(&self, place: u64, living: &BTreeMap<u64, SessionId>) -> Result<bool> {
        let of = living.len() as u64;
        let wanted: Vec<u64> = {
            let view = self.view();
            (0..self.users).filter(|user| user % of == place && !view.contains_key(user)).collect()
        };
        let names: Vec<String> = wanted.iter().map(|user| format!("user/{user}")).collect();
        let claimed = self.session.register(&names)?;
        let mut view = self.view();
        let mut all = true;
        for (user, result) in wanted.into_iter().zip(claimed) {
            match result {
                Ok(Registered::Granted(owner)) => drop(view.insert(user, owner.token)),
                // It came to another before, or was moved there. If that one does not live, the
                // part of the server that has this user has not heard so yet.
                Ok(Registered::Held(owner)) => {
                    all &= living.values().any(|is| *is == owner.session);
                }
                Err(refusal) => return Err(refusal.into()),
            }
        }
        Ok(all)
    }

    /// Gives users to another process: each of them has its new owner in the same step, and both
    /// sides know. No user is without an owner in between.
    fn give(&self, most: usize, to: SessionId) -> Result<(usize, Duration)> {
        let given: Vec<u64> = self.view().keys().copied().take(most).collect();
        let names: Vec<String> = given.iter().map(|user| format!("user/{user}")).collect();
        let begun = Instant::now();
        let moved = self.session.transfer(&names, to)?;
        let took = begun.elapsed();
        let mut count = 0;
        for (user, result) in given.into_iter().zip(moved) {
            if result.is_ok() {
                self.view().remove(&user);
                count += 1;
            }
        }
        Ok((count, took))
    }
}

/// Takes into the view what others give, in a thread of its own.
fn follow_gifts(session: &Session, view: &View) {
    let (mut events, view) = (session.events(), Arc::clone(view));
    std::thread::spawn(move || {
        while let Some(event) = events.recv() {
            let mut view = view.lock().expect("no thread dies with it");
            if events.dropped() > 0 {
                // So many at once that some were not kept for us. Whoever does not know what is
                // its own begins anew, with nothing.
                eprintln!("{} events were missed", events.dropped());
                std::process::exit(1);
            }
            match event {
                Event::Received { name, token, .. } => {
                    view.extend(number_in(&name).map(|user| (user, token)));
                }
                Event::Taken { name, .. } => {
                    number_in(&name).map(|user| view.remove(&user));
                }
                // Nothing is its own any more, whatever it believed.
                Event::Lost(over) => {
                    eprintln!("the session is over: {over}");
                    std::process::exit(1);
                }
                _ => {}
            }
        }
    });
}

// ---- The command: starts processes, and looks at what becomes of it.

struct Process {
    child: Child,
    says: Lines<BufReader<ChildStdout>>,
    told: ChildStdin,
    session: SessionId,
}

impl Process {
    fn start(address: &str, number: u64, users: u64) -> Result<Process> {
        let mut child = Command::new(current_exe()?)
            .args(["worker", address, &number.to_string(), &users.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let says = BufReader::new(child.stdout.take().ok_or("it has an output")?).lines();
        let told = child.stdin.take().ok_or("it has an input")?;
        let mut process = Process { child, says, told, session: SessionId(0) };
        let [session] = process.hear("session")?;
        process.session = SessionId(session);
        Ok(process)
    }

    fn tell(&mut self, what: &str) -> Result<()> {
        Ok(writeln!(self.told, "{what}")?)
    }

    /// The numbers of its next line, which begins with this word.
    fn hear<const N: usize>(&mut self, word: &str) -> Result<[u64; N]> {
        let line = self.says.next().ok_or("a process has ended")??;
        let numbers = line.strip_prefix(word).ok_or_else(|| format!("it says {line:?}"))?;
        let numbers: std::result::Result<Vec<u64>, _> =
            numbers.split_whitespace().map(str::parse).collect();
        Ok(numbers?.try_into().map_err(|_| format!("it says {line:?}"))?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn conduct(address: &str, users: u64, processes: u64) -> Result<()> {
    let session = Session::builder().node(1 << 40).connect(address)?;
    let mut events = session.events();
    let mut workers = Vec::new();
    for number in 1..=processes {
        workers.push(Process::start(address, number, users)?);
    }

    let begun = Instant::now();
    workers.iter_mut().try_for_each(|worker| worker.tell("begin"))?;
    until_all_are_owned(&mut workers, users, &mut events)?;
    println!("{processes} processes own {users} users after {:?}", begun.elapsed());

    // Killed without a warning. From here on its lease runs.
    let begun = Instant::now();
    drop(workers.remove(0));
    until_all_are_owned(&mut workers, users, &mut events)?;
    let took = begun.elapsed();
    println!("one was killed, its users were taken over after {took:?}, of a lease of {LEASE:?}");

    let to = workers[1].session;
    workers[0].tell(&format!("move {}", to.0))?;
    let [moved, micros] = workers[0].hear("moved")?;
    println!("{moved} users were moved in {:?}", Duration::from_micros(micros));
    until_all_are_owned(&mut workers, users, &mut events)?;

    let begun = Instant::now();
    let mut owners: BTreeMap<SessionId, Vec<(u64, Token)>> = BTreeMap::new();
    for listed in session.list("user/")? {
        let user = number_in(&listed.name).ok_or("a user has a number")?;
        owners.entry(listed.session).or_default().push((user, listed.token));
    }
    let listed: usize = owners.values().map(Vec::len).sum();
    if listed as u64 != users || owners.len() as u64 != processes - 1 {
        return Err(format!("{listed} users have {} owners", owners.len()).into());
    }
    for worker in &mut workers {
        worker.tell("report")?;
        let [count, sum] = worker.hear("owns")?;
        let believed = format!("{count} {sum}");
        let owned = owners.remove(&worker.session).unwrap_or_default();
        let known = digest(owned.into_iter());
        if believed != known {
            return Err(format!("a process believes in {believed}, the server in {known}").into());
        }
    }
    println!("every user has one owner, who knows it; checked in {:?}", begun.elapsed());
    Ok(())
}

/// Waits until the processes believe to own as many users as there are.
fn until_all_are_owned(workers: &mut [Process], users: u64, events: &mut Events) -> Result<()> {
    let patience = Instant::now() + Duration::from_secs(120);
    while Instant::now() < patience {
        workers.iter_mut().try_for_each(|worker| worker.tell("count"))?;
        let mut owned = 0;
        for worker in workers.iter_mut() {
            let [count] = worker.hear("has")?;
            owned += count;
        }
        if owned == users {
            return Ok(());
        }
        if let Some(Event::Lost(over)) = events.recv_timeout(Duration::from_millis(5)) {
            return Err(over.into());
        }
    }
    Err("not all users have an owner".into())
}

/// The number in `user/17` or `workers/3`.
fn number_in(name: &[u8]) -> Option<u64> {
    std::str::from_utf8(name).ok()?.split_once('/')?.1.parse().ok()
}

/// How many there are, and a sum that another set of users or tokens hardly has.
fn digest(owned: impl Iterator<Item = (u64, Token)>) -> String {
    let (count, sum) = owned.fold((0u64, 0u64), |(count, sum), (user, token)| {
        let mixed = (user + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ token.0;
        (count + 1, sum.wrapping_add(mixed.wrapping_mul(0xD6E8_FEB8_6659_FD93)))
    });
    format!("{count} {sum}")
}
