//! Packets that a firewall drops: nobody is told, and connections look alive for minutes.

use std::time::Duration;

use super::flows::{Load, Transfer, mirror};
use super::place::{in_a_network_of_its_own, run};
use super::sites::{Keys, Side, Words};
use crate::support::{pass, until};

/// Sets what is dropped, both ways; replaces what was.
fn drops(rules: &[String]) {
    let rules: String = rules.iter().map(|rule| format!("tcp {rule} drop\n")).collect();
    let chain = format!("chain c {{\ntype filter hook input priority 0;\n{rules}}}");
    run(&["nft", &format!("table inet t\ndelete table inet t\ntable inet t {{\n{chain}\n}}\n")]);
}

fn moved(side: &Side) -> u64 {
    side.session().flows.iter().map(|flow| flow.bytes_in + flow.bytes_out).sum()
}

/// The ports by which the near side's carriers reach the far one.
fn carriers(far: &Side) -> Vec<u16> {
    let session = far.session();
    session.carriers.iter().filter_map(|carrier| Some(carrier.peer?.port())).collect()
}

/// While a transfer runs, all packets of a carrier are dropped, and of the next one; then all
/// between the sites for seconds, and then none. Flows go on each time, by other carriers or when
/// there is a way again, and every byte arrives.
#[test]
fn packets_that_are_dropped_without_a_word() {
    in_a_network_of_its_own(|| {
        let service = mirror("127.0.0.1:0");
        let keys = Keys::new();
        // At this rate the transfer lasts for what happens to it.
        let rate = Words::default().peer("rate = \"100 Mbit/s\"");
        let far = keys.far(&rate.allow([service]));
        let near = keys.near(&Words::default().forward(service), far.carriers());
        until("connected", || near.status().peers[0].up.then_some(()));
        let transfers: Vec<Transfer> = (0..3)
            .map(|seed| Load { seed: 30 + seed, up: 8 << 20, down: 8 << 20 })
            .map(|load| Transfer::begin(near.door(0), load))
            .collect();
        let over = || transfers.iter().all(Transfer::is_over);
        let port = far.carriers().port();
        let mut dropped = 0;
        for _ in 0..2 {
            until("it moves", || (moved(&near) > 1 << 20 || over()).then_some(()));
            let Some(victim) = carriers(&far).pop() else { continue };
            let lost = near.counter("carriers_lost");
            drops(&[format!("sport {victim}"), format!("dport {victim}")]);
            until("it is noticed", || {
                let others = carriers(&far).iter().any(|one| *one != victim);
                (others || near.counter("carriers_lost") > lost || over()).then_some(())
            });
            dropped += usize::from(!over());
        }
        drops(&[format!("sport {port}"), format!("dport {port}")]);
        pass(Duration::from_secs(3));
        assert!(!over(), "it was over before all was dropped");
        drops(&[]);
        transfers.into_iter().for_each(Transfer::arrives);
        println!("{dropped} carriers were silenced");
        assert!(dropped >= 1, "it was over before anything was dropped");
        near.stop();
        far.stop();
    });
}
