//! One switch at a time: when it happens, and what it takes.

use super::room::Room;
use super::streams::{Format, Packet, Shape};
use crate::media::layers::{Kind, Layer, MAX_LATE, Verdict};

const VP8: Shape = Shape { format: Format::Vp8, spatial: 1, temporal: 3, key_svc: false };
const H264: Shape = Shape { format: Format::H264, spatial: 1, temporal: 1, key_svc: false };

fn svc(format: Format, key_svc: bool) -> Shape {
    Shape { format, spatial: 3, temporal: 3, key_svc }
}

/// The packets of each encoding's next picture.
fn pictures(room: &mut Room, key: bool) -> Vec<(usize, Packet)> {
    let mut packets = Vec::new();
    for (index, encoder) in room.encoders.iter_mut().enumerate() {
        let active = encoder.active;
        packets.extend(encoder.picture(key, active, 3).into_iter().map(|packet| (index, packet)));
    }
    packets
}

fn run(room: &mut Room, count: usize) {
    for _ in 0..count {
        for (index, packet) in pictures(room, false) {
            room.arrive(index, packet);
        }
    }
}

fn run_key(room: &mut Room) {
    for (index, packet) in pictures(room, true) {
        room.arrive(index, packet);
    }
}

fn layer(spatial: u8, temporal: u8) -> Option<Layer> {
    Some(Layer { spatial, temporal })
}

/// A room whose consumer has begun with these layers.
fn begun(kind: Kind, shape: Shape, encodings: u8, spatial: u8, temporal: u8) -> Room {
    let mut room = Room::new(kind, shape, encodings, 1234);
    room.wish(spatial, temporal);
    run_key(&mut room);
    run(&mut room, 8);
    assert_eq!(room.selector.current(), layer(spatial, temporal));
    assert_eq!(room.selector.needs_key_frame(), None);
    room
}

#[test]
fn a_stream_begins_and_goes_on_with_a_cached_key_frame() {
    for (kind, shape, encodings) in [
        (Kind::Simulcast, VP8, 3),
        (Kind::Simulcast, H264, 3),
        (Kind::Svc, svc(Format::Vp9Flexible, false), 1),
        (Kind::Svc, svc(Format::Vp9Pattern, true), 1),
        (Kind::Svc, svc(Format::Av1, false), 1),
    ] {
        let temporal = shape.temporal - 1;
        let mut room = begun(kind, shape, encodings, 0, temporal);
        run(&mut room, 30);
        room.wish(2, temporal);
        run(&mut room, 5);
        let last = usize::from(encodings) - 1;
        room.replay(last);
        assert_eq!(room.selector.needs_key_frame(), None, "{shape:?}");
        assert_eq!(room.selector.current().map(|layer| layer.spatial), Some(2), "{shape:?}");
        run(&mut room, 20);
        // The receiver could not use it.
        room.replay(last);
        run(&mut room, 20);
        let decoder = room.decode(shape.format);
        assert_eq!(decoder.switches, 3, "{shape:?}");
        let top = if kind == Kind::Svc { (0, 2, 0) } else { (2, 0, 0) };
        assert!(decoder.frames[&top] > 10, "{shape:?}: {:?}", decoder.frames);
    }
}

#[test]
fn the_old_encoding_goes_on_until_the_new_ones_key_frame() {
    let mut room = begun(Kind::Simulcast, VP8, 3, 0, 2);
    room.wish(2, 2);
    assert_eq!(room.selector.needs_key_frame(), Some(2));
    run(&mut room, 5);
    assert_eq!(room.selector.current(), layer(0, 2));
    run_key(&mut room);
    assert_eq!((room.selector.current(), room.selector.needs_key_frame()), (layer(2, 2), None));
    let decoder = room.decode(Format::Vp8);
    assert_eq!(decoder.switches, 2);
    assert_eq!(decoder.frames.values().sum::<usize>(), 9 + 5 + 1 + 1);
}

#[test]
fn a_key_frame_whose_first_packet_is_late_is_replayed() {
    for shape in [VP8, H264] {
        let mut room = begun(Kind::Simulcast, shape, 2, 0, 0);
        room.wish(1, 0);
        let mut packets = pictures(&mut room, true);
        let at = packets.iter().position(|(index, _)| *index == 1).expect("its first packet");
        let late = packets.remove(at);
        for _ in 0..9 {
            packets.extend(pictures(&mut room, false));
        }
        for (index, packet) in packets {
            room.arrive(index, packet);
        }
        assert_eq!(room.selector.current(), layer(0, 0), "{shape:?}");
        room.arrive(late.0, late.1);
        assert_eq!(room.selector.needs_key_frame(), None, "{shape:?}: not asked for again");
        let decoder = room.decode(shape.format);
        let of_second: usize =
            decoder.frames.iter().filter(|(layer, _)| layer.0 == 1).map(|(_, count)| count).sum();
        let expected = if shape == VP8 { 3 } else { 10 };
        assert_eq!(of_second, expected, "{shape:?}: the key frame and those that followed");
    }
}

#[test]
fn a_first_packet_that_is_too_late_begins_nothing() {
    let mut room = begun(Kind::Simulcast, VP8, 2, 0, 0);
    room.wish(1, 0);
    let late = pictures(&mut room, true).into_iter().find(|(index, _)| *index == 1).unwrap();
    run(&mut room, MAX_LATE as usize / 3 + 1);
    room.arrive(late.0, late.1);
    assert_eq!(room.last, Some(Verdict::Ignore));
    assert_eq!(room.selector.needs_key_frame(), Some(1));
}

#[test]
fn an_h264_picture_does_not_overtake_its_parameter_sets() {
    let mut room = Room::new(Kind::Simulcast, H264, 1, 0);
    room.wish(0, 0);
    let mut packets = pictures(&mut room, true).into_iter();
    let (parameter_sets, picture) = (packets.next().unwrap(), packets.next().unwrap());
    room.arrive(0, picture.1);
    assert_eq!(room.last, Some(Verdict::Ignore));
    room.arrive(0, parameter_sets.1);
    assert_eq!(room.last, Some(Verdict::Forward { marker: None, switch: false }), "replayed");
}

#[test]
fn vp8_layers_leave_at_once_and_come_back_at_sync_frames() {
    let mut room = begun(Kind::Simulcast, VP8, 1, 0, 2);
    room.wish(0, 0);
    run(&mut room, 8);
    assert_eq!(room.selector.current(), layer(0, 0));
    // 17 pictures so far: the next sync frame of layer 1 (RFC 7741 §4.2, Y) is the second from now; the
    // frame of layer 2 before it may not be taken, its successor may.
    room.wish(0, 2);
    run(&mut room, 1);
    assert_eq!(room.selector.current(), layer(0, 0));
    run(&mut room, 1);
    assert_eq!(room.selector.current(), layer(0, 1));
    run(&mut room, 8);
    assert_eq!(room.selector.current(), layer(0, 2));
    room.decode(Format::Vp8);
}

#[test]
fn spatial_layers_leave_with_the_next_picture_and_come_back_with_a_key_picture() {
    for format in [Format::Vp9Flexible, Format::Vp9Pattern, Format::Av1] {
        for key_svc in [false, true] {
            let shape = svc(format, key_svc);
            let mut room = begun(Kind::Svc, shape, 1, 2, 2);
            room.wish(0, 2);
            run(&mut room, 1);
            assert_eq!(room.selector.current(), layer(0, 2), "{shape:?}");
            assert_eq!(room.selector.needs_key_frame(), None, "{shape:?}");
            run(&mut room, 3);
            room.wish(2, 2);
            assert_eq!(room.selector.needs_key_frame(), Some(0), "{shape:?}");
            run(&mut room, 8);
            assert_eq!(room.selector.current(), layer(0, 2), "{shape:?}");
            run_key(&mut room);
            assert_eq!(room.selector.current(), layer(2, 2), "{shape:?}");
            assert_eq!(room.selector.needs_key_frame(), None, "{shape:?}");
            room.decode(format);
        }
    }
}

/// The marker bit was kept for it.
#[test]
fn the_end_of_a_picture_is_forwarded_even_if_it_is_not_wanted_any_more_when_it_comes() {
    let mut room = Room::new(Kind::Svc, svc(Format::Av1, true), 1, 0);
    room.wish(2, 2);
    let mut packets: Vec<Packet> = room.encoders[0].picture(true, 3, 1);
    let late = packets.pop().expect("the top layer's frame");
    packets.into_iter().for_each(|packet| room.arrive(0, packet));
    room.wish(1, 2);
    run(&mut room, 1);
    room.arrive(0, late);
    assert!(matches!(room.last, Some(Verdict::Forward { .. })));
    assert_eq!(room.selector.current(), layer(1, 2));
    room.decode(Format::Av1);
}

#[test]
fn a_frame_is_not_taken_for_one_of_an_earlier_picture() {
    let mut room = begun(Kind::Svc, svc(Format::Av1, false), 1, 1, 2);
    room.wish(2, 2);
    let mut first: Vec<Packet> = room.encoders[0].picture(false, 3, 1);
    let mut second: Vec<Packet> = room.encoders[0].picture(false, 3, 1);
    let (late, early) = (first.pop().expect("a frame"), second.pop().expect("a frame"));
    first.into_iter().for_each(|packet| room.arrive(0, packet));
    room.arrive(0, early);
    assert_eq!(room.last, Some(Verdict::Skip), "it refers to a frame that will not be taken up");
    second.into_iter().for_each(|packet| room.arrive(0, packet));
    room.arrive(0, late);
    run(&mut room, 8);
    room.decode(Format::Av1);
}

#[test]
fn a_spatial_layer_that_begins_anew_is_taken_up_without_a_key_picture() {
    let mut room = Room::new(Kind::Svc, svc(Format::Vp9Flexible, false), 1, 7);
    room.wish(2, 2);
    room.encoders[0].active = 1;
    run_key(&mut room);
    run(&mut room, 7);
    assert_eq!(room.selector.current(), layer(0, 2));
    assert_eq!(room.selector.needs_key_frame(), None, "nothing higher is being sent");
    for packet in room.encoders[0].picture(false, 3, 2) {
        room.arrive(0, packet);
    }
    assert_eq!(room.selector.current(), layer(2, 2));
    run(&mut room, 8);
    room.decode(Format::Vp9Flexible);
}

#[test]
fn after_a_pause_the_stream_begins_with_a_key_frame() {
    let mut room = begun(Kind::Simulcast, VP8, 1, 0, 2);
    room.selector.set_target(None);
    run(&mut room, 3);
    assert_eq!((room.last, room.selector.current()), (Some(Verdict::Ignore), None));
    assert_eq!(room.selector.needs_key_frame(), None);
    room.wish(0, 2);
    assert_eq!(room.selector.needs_key_frame(), Some(0));
    run(&mut room, 3);
    assert_eq!(room.selector.current(), None);
    run_key(&mut room);
    assert_eq!(room.decode(Format::Vp8).switches, 2);
}

#[test]
fn on_the_way_down_the_old_encoding_gives_up_its_temporal_layers_first() {
    let mut room = begun(Kind::Simulcast, VP8, 3, 2, 2);
    room.wish(0, 0);
    run(&mut room, 1);
    assert_eq!(room.selector.current(), layer(2, 0));
    let mut room = begun(Kind::Simulcast, VP8, 3, 0, 2);
    room.wish(2, 0);
    run(&mut room, 1);
    assert_eq!(room.selector.current(), layer(0, 2), "but not on the way up");
}

#[test]
fn a_selector_is_small() {
    assert!(size_of::<crate::media::layers::Selector>() <= 768);
}
