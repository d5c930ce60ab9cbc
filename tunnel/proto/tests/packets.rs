//! The stories of `aired`, of sessions that have carriers of packets.

mod aired;
mod net;

/// Seeds of each story.
const SEEDS: u64 = 3;

fn tell(story: aired::Story) {
    (0..SEEDS).for_each(|seed| story(None, seed));
}

#[test]
fn a_session_takes_to_packets() {
    tell(aired::a_session_takes_to_packets);
}

#[test]
fn packets_may_be_lost_doubled_and_late() {
    tell(aired::packets_may_be_lost_doubled_and_late);
}

#[test]
fn datagrams_go_beside_streams() {
    tell(aired::datagrams_go_beside_streams);
}

#[test]
fn a_session_falls_back_to_records_and_returns() {
    tell(aired::a_session_falls_back_to_records_and_returns);
}

#[test]
fn who_is_held_back_and_alone_goes_on() {
    tell(aired::who_is_held_back_and_alone_goes_on);
}

#[test]
fn who_begins_anew_finds_out_again() {
    tell(aired::who_begins_anew_finds_out_again);
}

#[test]
fn who_is_held_back_and_silent_goes_on() {
    tell(aired::who_is_held_back_and_silent_goes_on);
}

#[test]
fn who_asks_silence_hears_soon() {
    tell(aired::who_asks_silence_hears_soon);
}

#[test]
fn what_was_suspect_goes_on() {
    tell(aired::what_was_suspect_goes_on);
}

#[test]
fn packets_carry_a_session_alone() {
    tell(aired::packets_carry_a_session_alone);
}

#[test]
fn keys_change_under_packets() {
    tell(aired::keys_change_under_packets);
}

#[test]
fn keys_are_not_offered_to_silence() {
    tell(aired::keys_are_not_offered_to_silence);
}

#[test]
fn what_does_not_verify_moves_nothing() {
    tell(aired::what_does_not_verify_moves_nothing);
}

#[test]
fn junk_within_trains_moves_nothing() {
    tell(aired::junk_within_trains_moves_nothing);
}

#[test]
fn a_path_follows_the_newest_packet() {
    tell(aired::a_path_follows_the_newest_packet);
}

#[test]
fn what_is_old_moves_no_path_back() {
    tell(aired::what_is_old_moves_no_path_back);
}

#[test]
fn nobody_is_flooded_by_a_moved_path() {
    tell(aired::nobody_is_flooded_by_a_moved_path);
}

#[test]
fn two_addresses_in_turn_are_one_path() {
    tell(aired::two_addresses_in_turn_are_one_path);
}

#[test]
fn packets_find_their_session_on_any_shard() {
    tell(aired::packets_find_their_session_on_any_shard);
}

#[test]
fn packets_can_be_switched_off_and_on() {
    tell(aired::packets_can_be_switched_off_and_on);
}

#[test]
fn the_far_site_switches_packets_off_and_on() {
    tell(aired::the_far_site_switches_packets_off_and_on);
}

#[test]
fn a_way_there_and_none_back_is_not_used() {
    tell(aired::a_way_there_and_none_back_is_not_used);
}

#[test]
fn who_moves_in_silence_is_found() {
    tell(aired::who_moves_in_silence_is_found);
}

#[test]
fn datagrams_are_as_long_as_the_path_passes() {
    tell(aired::datagrams_are_as_long_as_the_path_passes);
}

#[test]
fn an_outage_is_no_length() {
    tell(aired::an_outage_is_no_length);
}

#[test]
fn what_is_lost_was_not_too_long() {
    tell(aired::what_is_lost_was_not_too_long);
}

#[test]
fn a_path_that_becomes_narrower_is_found() {
    tell(aired::a_path_that_becomes_narrower_is_found);
}

#[test]
fn short_messages_find_a_narrower_path() {
    tell(aired::short_messages_find_a_narrower_path);
}

#[test]
fn where_packets_are_held_back_streams_leave_and_return() {
    tell(aired::where_packets_are_held_back_streams_leave_and_return);
}

#[test]
fn who_has_new_keys_looks_beside() {
    tell(aired::who_has_new_keys_looks_beside);
}

#[test]
fn what_is_lost_goes_before_what_is_new() {
    tell(aired::what_is_lost_goes_before_what_is_new);
}

#[test]
fn a_look_takes_little_of_a_link() {
    tell(aired::a_look_takes_little_of_a_link);
}

#[test]
fn slow_records_are_left_alone() {
    tell(aired::slow_records_are_left_alone);
}

/// What a host had to drop, because its agent did not read, is told to who sent it.
#[test]
fn drops_of_a_host_are_told() {
    tell(aired::drops_of_a_host_are_told);
}

#[test]
fn who_stops_says_so_by_packets() {
    tell(aired::who_stops_says_so_by_packets);
}

#[test]
fn who_died_is_missed_by_packets() {
    tell(aired::who_died_is_missed_by_packets);
}
