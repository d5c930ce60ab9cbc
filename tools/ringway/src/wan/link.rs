//! `ringway wan link`: real links between two network namespaces.

use std::ffi::OsString;
use std::process::{Child, ExitCode};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use ringway_wan::Link;
use ringway_wan::real::{
    Answer, LinkError, LinkStatus, Plan, Request, Running, Status, WayStatus, ask, clean,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::args::wan::{LinkCommand, NameArgs, RunArgs, SetArgs};
use crate::failure::{Failure, host};
use crate::notify;
use crate::output::{answer, say, table};
use crate::port::code_of;
use crate::signals::{Insisting, hear};
use crate::wan::{leashed_in, matrix};

/// Between two looks at the command and at the links.
const GLANCE: Duration = Duration::from_millis(20);
/// What a command may take to end when we are told to.
const GRACE: Duration = Duration::from_secs(5);

pub(super) fn run(command: &LinkCommand, json: bool) -> Result<ExitCode, Failure> {
    match command {
        LinkCommand::Run(args) => run_links(args, json),
        LinkCommand::Set(args) => set(args, json),
        LinkCommand::Show(args) => show(args, json),
        LinkCommand::Clean(args) => remove(args, json),
    }
}

impl From<LinkError> for Failure {
    fn from(error: LinkError) -> Failure {
        let text = error.to_string();
        if error.is_hosts_doing() { Failure::Host(text) } else { Failure::Usage(text) }
    }
}

fn run_links(args: &RunArgs, json: bool) -> Result<ExitCode, Failure> {
    let links = read(&args.links)?;
    let (name, seed, spin) = (args.name.clone(), args.seed, args.spin);
    // Before anything is made, so that nobody who stops us leaves it behind.
    let stop = stopped()?;
    let running = Running::start(&Plan { name, links, seed, spin })?;
    let status = running.status()?;
    say(&ready(&status, json));
    notify::ready();
    let command = match args.exec.as_slice() {
        [] => None,
        words => Some(start_in(&status.namespaces[0], words)?),
    };
    let ended = until_the_end(&running, command, &stop);
    notify::stopping();
    drop(running);
    ended
}

/// The links that are told. What looks like a word of a link without its quotes, or like a command,
/// is told what it should have been.
fn read(links: &[String]) -> Result<Vec<Link>, Failure> {
    let hint = |words: &str| {
        let lacks_a_rate = || Link::parse(&format!("rate=1mbit {words}")).is_ok();
        match links.len() {
            1 => "",
            _ if !words.contains('=') => "; a command to run stands behind --exec",
            _ if lacks_a_rate() => {
                "; the words of one link stand together in quotes, as 'rate=200mbit rtt=40ms'"
            }
            _ => "",
        }
    };
    let read = |words: &String| {
        Link::parse(words).map_err(|why| Failure::Usage(format!("{why}{}", hint(words))))
    };
    links.iter().map(read).collect()
}

/// Tells of the first signal to stop. A terminal that is closed is one.
fn stopped() -> Result<Receiver<i32>, Failure> {
    let (tell, told) = channel();
    let mut insisting = Insisting::default();
    hear(&[SIGINT, SIGTERM, SIGHUP], move |signal| {
        if insisting.hear(signal) {
            // Whoever does not listen any more is stopping already.
            let _ = tell.send(signal);
        }
    })?;
    Ok(told)
}

/// Starts a command in a namespace.
fn start_in(space: &str, words: &[OsString]) -> Result<Child, Failure> {
    let mut command = leashed_in(space);
    command.args(words);
    command.spawn().map_err(|error| host("cannot run `ip netns exec`", error))
}

/// Until the command has ended, we are told to stop, or a link is gone.
fn until_the_end(
    running: &Running,
    mut command: Option<Child>,
    stop: &Receiver<i32>,
) -> Result<ExitCode, Failure> {
    let mut kill_at = None;
    loop {
        if let Some(status) = command.as_mut().and_then(|child| child.try_wait().transpose()) {
            return Ok(code_of(
                status.map_err(|error| host("cannot wait for the command", error))?,
            ));
        }
        if let Some(why) = running.ended() {
            command.iter_mut().for_each(|child| signal(child, Signal::KILL));
            return Err(Failure::Host(why));
        }
        if stop.recv_timeout(GLANCE).is_ok() {
            let Some(child) = &mut command else { return Ok(ExitCode::SUCCESS) };
            signal(child, Signal::TERM);
            kill_at = Some(Instant::now() + GRACE);
        }
        if let (Some(child), true) = (&mut command, kill_at.is_some_and(|at| at <= Instant::now()))
        {
            signal(child, Signal::KILL);
            kill_at = None;
        }
    }
}

/// One that has ended meanwhile needs none.
fn signal(child: &mut Child, signal: Signal) {
    let _ = kill_process(Pid::from_child(child), signal);
}

fn ready(status: &Status, json: bool) -> String {
    if json {
        return serde_json::to_string(status).expect("plain numbers and texts");
    }
    let Status { name, pid, namespaces: [first, second], seed, .. } = status;
    let mut text = format!("ready {name} pid={pid} namespaces={first},{second} seed={seed}\n");
    for link in &status.links {
        let [near, far] = &link.addresses;
        text += &format!("  {} {near} - {far} {}\n", link.device, link.words);
    }
    text
}

fn set(args: &SetArgs, json: bool) -> Result<ExitCode, Failure> {
    let request = Request::Set { link: args.link.0, words: args.words.join(" ") };
    let status = asked(&args.name, &request)?;
    let changed = |link: &&LinkStatus| args.link.0.is_none_or(|number| number == link.link);
    let links: Vec<&LinkStatus> = status.links.iter().filter(changed).collect();
    answer(json, &links, || {
        links.iter().map(|link| format!("link {}: {}\n", link.link, link.words)).collect()
    });
    Ok(ExitCode::SUCCESS)
}

fn show(args: &NameArgs, json: bool) -> Result<ExitCode, Failure> {
    let status = asked(args.name(), &Request::Show)?;
    answer(json, &status, || page(&status));
    Ok(ExitCode::SUCCESS)
}

fn asked(name: &str, request: &Request) -> Result<Status, Failure> {
    match ask(name, request) {
        Ok(Answer::Status(status)) => Ok(status),
        Ok(Answer::Wrong(why)) => Err(Failure::Usage(why)),
        Ok(Answer::Failed(why)) => Err(Failure::Host(why)),
        Err(error) => Err(Failure::Unreachable(format!(
            "no links called {name:?} answer: {error}. `ringway wan link run` starts them; it and \
             this have to run as the same user. If that was killed, `ringway wan link clean \
             {name}` removes what it has left"
        ))),
    }
}

fn page(status: &Status) -> String {
    let Status { name, pid, namespaces: [first, second], seed, uptime_ms, .. } = status;
    let seconds = uptime_ms / 1_000;
    let mut text =
        format!("{name}: {first} - {second}, up for {seconds} s, process {pid}, seed {seed}\n\n");
    for link in &status.links {
        text += &format!("link {}: {}\n", link.link, link.words);
    }
    let head = [
        "link",
        "from",
        "to",
        "packets",
        "bytes",
        "overflowed",
        "lost",
        "cut",
        "refused",
        "late",
        "latest",
        "waiting",
    ];
    let mut rows = Vec::new();
    for link in &status.links {
        let [near, far] = &link.addresses;
        rows.push(row(link.link, [near, far], &link.there));
        rows.push(row(link.link, [far, near], &link.back));
    }
    text + "\n" + &table(&head, &rows)
}

fn row(number: usize, [from, to]: [&String; 2], way: &WayStatus) -> Vec<String> {
    let WayStatus { counts, trouble, .. } = way;
    let mut row = vec![number.to_string(), from.clone(), to.clone()];
    let numbers = [
        counts.arrived,
        counts.arrived_bytes,
        counts.overflowed,
        counts.lost,
        counts.cut,
        way.own_losses(),
        trouble.late_1ms,
    ];
    row.extend(numbers.map(|number| number.to_string()));
    row.push(format!("{:.1} ms", trouble.late_us_max as f64 / 1_000.0));
    row.push(way.waiting_bytes.to_string());
    row
}

fn remove(args: &NameArgs, json: bool) -> Result<ExitCode, Failure> {
    let name = args.name();
    let mut removed = clean(name)?;
    removed.extend(matrix::remove_left(name)?);
    answer(json, &json!({ "removed": removed }), || match removed.as_slice() {
        [] => format!("there is nothing left of {name}"),
        removed => format!("removed {}", removed.join(", ")),
    });
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was meant is said: quotes that are missing, and a command in a link's place.
    #[test]
    fn what_was_meant_is_said() {
        let told = |links: &[&str]| {
            let links: Vec<String> = links.iter().map(|&words| words.to_owned()).collect();
            let Err(Failure::Usage(why)) = read(&links) else { panic!("{links:?}") };
            why
        };
        let unquoted = told(&["rate=20mbit", "rtt=40ms"]);
        assert!(unquoted.contains("`rtt=40ms`") && unquoted.contains("in quotes"), "{unquoted}");
        let command = told(&["rate=20mbit", "ping", "-c"]);
        assert!(command.contains("`ping`") && command.ends_with("behind --exec"), "{command}");
        for links in [&["rate=20mbit rtt=40"][..], &["rate=20mbit", "rate=20mbit rtt=40"]] {
            let wrong = told(links);
            assert!(wrong.contains("with its unit") && !wrong.contains("quotes"), "{wrong}");
        }
        assert_eq!(read(&["rate=1mbit".to_owned()]).expect("a link").len(), 1);
    }
}
