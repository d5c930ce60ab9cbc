//! A name has one owner, whoever asks, whichever way, on however many shards.

use std::time::{Duration, Instant};

use ringway_client::{OpenRequest, Refusal, Registered};
use ringway_core::NodeId;

use crate::support::{Setup, granted, granted_at_last, held, spawn_at};

/// Two clients on separate connections claim the same names at the same time: every name has one
/// owner, both agree on who it is, and what one of them releases the other gets under a larger
/// token.
#[test]
fn a_name_has_one_owner() {
    let server = Setup::new().shards(2).start();
    let names: Vec<String> = (0..2000).map(|index| format!("shared/{index}")).collect();
    let claim = || {
        let mut client = server.client();
        let wanted: Vec<&[u8]> = names.iter().map(String::as_bytes).collect();
        let got: Vec<_> = wanted
            .chunks(100)
            .flat_map(|some| client.register(some).expect("answers"))
            .map(|result| result.expect("no name is refused"))
            .collect();
        (client, got)
    };
    let ((mut one, first), (mut two, second)) = std::thread::scope(|scope| {
        let (one, two) = (scope.spawn(claim), scope.spawn(claim));
        (one.join().expect("claims"), two.join().expect("claims"))
    });
    let mut wins = [0; 2];
    for (index, pair) in first.into_iter().zip(second).enumerate() {
        let name = &names[index];
        let (winner, owner) = match pair {
            (Registered::Granted(owner), Registered::Held(seen)) => {
                assert_eq!((owner.session, owner.token), (seen.session, seen.token), "{name}");
                (0, owner)
            }
            (Registered::Held(seen), Registered::Granted(owner)) => {
                assert_eq!((owner.session, owner.token), (seen.session, seen.token), "{name}");
                (1, owner)
            }
            both => panic!("{name}: {both:?}"),
        };
        wins[winner] += 1;
        let (winner, loser) = if winner == 0 { (&mut one, &mut two) } else { (&mut two, &mut one) };
        assert_eq!(held(loser, name).token, owner.token, "{name}");
        let refused = loser.release(&[name.as_bytes()]).expect("an answer");
        assert_eq!(refused, [Err(Refusal::NotOwner)], "{name} is not the loser's to give");
        assert_eq!(winner.release(&[name.as_bytes()]).expect("an answer"), [Ok(())]);
        let next = granted(loser, name);
        assert!(next.token > owner.token, "{name}: {next:?} after {owner:?}");
    }
    println!("of 2000 names one client won {}, the other {}", wins[0], wins[1]);
    server.stop();
}

/// A process that dies takes its bare session with it: the kernel closes its connection, and the
/// name is free before any timer of ours could have noticed. The lease has nothing to do with it.
#[test]
fn the_names_of_a_killed_process_are_free_at_once() {
    let server = Setup::new().shards(2).start();
    let mut client = server.client();
    let mut soonest = Duration::MAX;
    for round in 0..5 {
        let name = format!("leader/{round}");
        let mut process = spawn_at(server.addr, &["port", "register", &name]);
        process.line_with("granted");
        let before = held(&mut client, &name);
        process.signal(rustix::process::Signal::KILL);
        let killed = Instant::now();
        let after = granted_at_last(&mut client, &name);
        soonest = soonest.min(killed.elapsed());
        assert!(after.token > before.token);
        assert_eq!(process.wait(), None, "ended by the signal");
    }
    println!("a killed process's name was free after {soonest:?} at best");
    // A lease would be in the way for 30 s. The least of five is also small where others use the
    // cores.
    assert!(soonest < Duration::from_secs(2), "{soonest:?}");
    server.stop();
}

/// A session that is not bare outlives its connection: its names stay, and whoever has the secret
/// takes them over on another connection.
#[test]
fn a_session_outlives_its_connection() {
    let server = Setup::new().shards(2).start();
    let mut first = server.client();
    let request = OpenRequest { lease: Duration::from_secs(20), ..OpenRequest::new(NodeId(7)) };
    let opened = first.open(request).expect("opens");
    let owner = granted(&mut first, "kept");
    drop(first);
    let mut other = server.client();
    crate::support::until("the session is away", || {
        other.session(opened.session).expect("it lives").away.then_some(())
    });
    assert_eq!(held(&mut other, "kept").token, owner.token);
    let resume = ringway_client::Resume::With(opened.secret);
    let mut second = server.client();
    let again = second.open(OpenRequest { resume, ..request }).expect("resumes");
    assert!(again.resumed && again.session == opened.session, "{again:?}");
    assert_eq!(granted(&mut second, "kept").token, owner.token, "it never lost it");
    second.close_session(None).expect("closes");
    assert!(granted(&mut other, "kept").token > owner.token);
    server.stop();
}
