//! RTCP, written and read again, and against bad input.

use super::*;
use crate::id::Ssrc;
use proptest::prelude::*;
use std::collections::BTreeSet;

const SENDER: Ssrc = Ssrc(0x0102_0304);
const MEDIA: Ssrc = Ssrc(0x0506_0708);

fn packets(datagram: &[u8]) -> Vec<Result<Packet<'_>>> {
    Compound::parse(datagram).unwrap().collect()
}

/// The only packet of `datagram`.
fn single(datagram: &[u8]) -> Packet<'_> {
    let mut packets = packets(datagram);
    assert_eq!(packets.len(), 1);
    packets.remove(0).unwrap()
}

fn written(write: impl FnOnce(&mut [u8]) -> Option<usize>) -> Vec<u8> {
    let mut out = vec![0xaa; 2000];
    let len = write(&mut out).unwrap();
    out.truncate(len);
    out
}

fn is_malformed(datagram: &[u8]) -> bool {
    Compound::parse(datagram).is_err()
}

fn block(ssrc: u32, cumulative_lost: i32) -> ReportBlock {
    ReportBlock {
        ssrc: Ssrc(ssrc),
        fraction_lost: 51,
        cumulative_lost,
        highest_sequence: 0x0001_ffff,
        jitter: 270,
        last_sr: 0x1122_3344,
        delay_since_last_sr: 0x8000,
    }
}

const INFO: SenderInfo = SenderInfo {
    ssrc: SENDER,
    ntp: 0x1122_3344_5566_7788,
    rtp: 90_000,
    packets: 1000,
    octets: 1_000_000,
};

#[test]
fn a_compound_is_walked_in_order() {
    let mut out = [0; 200];
    let mut writer = CompoundWriter::new(&mut out);
    writer.push(|room| write_sender_report(room, &INFO, &[block(7, -1)])).unwrap();
    writer.push(|room| write_cname(room, SENDER, b"alice")).unwrap();
    writer.push(|room| write_picture_loss(room, SENDER, MEDIA)).unwrap();
    let len = writer.len();
    let [Ok(Packet::SenderReport(report)), Ok(Packet::SourceDescription(description)), last] =
        &packets(&out[..len])[..]
    else {
        panic!("not the three packets that were written");
    };
    assert_eq!(report.info, INFO);
    assert_eq!(report.blocks.clone().collect::<Vec<_>>(), [block(7, -1)]);
    let chunk = SourceDescriptionChunk { ssrc: SENDER, cname: Some(b"alice") };
    assert_eq!(description.chunks().collect::<Vec<_>>(), [chunk]);
    let expected = PictureLoss { sender: SENDER, media: MEDIA };
    assert!(matches!(last, Ok(Packet::PictureLoss(loss)) if *loss == expected));
}

#[test]
fn a_compound_without_room_keeps_what_it_has() {
    let mut out = [0; 15];
    let mut writer = CompoundWriter::new(&mut out);
    writer.push(|room| write_picture_loss(room, SENDER, MEDIA)).unwrap();
    assert_eq!(writer.push(|room| write_goodbye(room, &[SENDER])), None);
    assert_eq!((writer.len(), writer.room(), writer.is_empty()), (12, 3, false));
}

#[test]
fn framing_is_checked() {
    // RFC 3550 A.2: version, and lengths that add up exactly.
    let good = written(|out| write_picture_loss(out, SENDER, MEDIA));
    for len in 0..good.len() {
        assert!(is_malformed(&good[..len]), "{len} bytes");
    }
    let trailing = [&good[..], &[0]].concat();
    assert!(is_malformed(&trailing));
    let mut version = good;
    version[0] = 0x40 | 1;
    assert!(is_malformed(&version));
}

#[test]
fn only_the_last_packet_may_be_padded() {
    // RFC 3550 §6.4.1.
    let plain = written(|out| write_goodbye(out, &[SENDER]));
    let padded = [0xa1, 203, 0, 2, 1, 2, 3, 4, 0, 0, 0, 4];
    let Packet::Goodbye(goodbye) = single(&padded) else { panic!("not a goodbye") };
    assert_eq!(goodbye.sources().collect::<Vec<_>>(), [SENDER]);
    assert_eq!(packets(&[&plain[..], &padded].concat()).len(), 2);
    assert!(is_malformed(&[&padded[..], &plain].concat()));
}

#[test]
fn feedback_may_be_padded_anywhere_by_any_count() {
    // As libwebrtc writes it: one status, one byte of delta, one of padding.
    let feedback = [0xaf, 205, 0, 5, 1, 2, 3, 4, 5, 6, 7, 8, 0, 1, 0, 1, 0, 0, 9, 0, 0x20, 1, 7, 1];
    let two = [feedback, feedback].concat();
    for packet in packets(&two) {
        let Ok(Packet::TransportCc(feedback)) = packet else { panic!("not feedback") };
        assert_eq!(feedback.statuses().collect::<Vec<_>>(), [(1, Some(7))]);
    }
}

#[test]
fn a_lying_padding_count_is_malformed() {
    for count in [0, 9, 255] {
        let packet = [0xa1, 203, 0, 2, 1, 2, 3, 4, 0, 0, 0, count];
        assert!(is_malformed(&packet), "count {count}");
    }
    assert!(is_malformed(&[0xa0, 203, 0, 0]), "no byte that counts");
}

#[test]
fn the_number_of_packets_is_bounded() {
    let goodbye = [0x80, 203, 0, 0];
    assert_eq!(packets(&goodbye.repeat(MAX_PACKETS)).len(), MAX_PACKETS);
    assert!(is_malformed(&goodbye.repeat(MAX_PACKETS + 1)));
}

#[test]
fn a_malformed_inside_does_not_hide_what_follows() {
    // A receiver report that claims a block, and has none.
    let lying = [0x81, 201, 0, 1, 1, 2, 3, 4];
    let good = written(|out| write_picture_loss(out, SENDER, MEDIA));
    let datagram = [&lying[..], &good].concat();
    let found = packets(&datagram);
    assert!(matches!(found[..], [Err(Malformed), Ok(Packet::PictureLoss(_))]));
}

#[test]
fn unknown_packets_are_passed_over() {
    // RFC 3550 §6.1: types that one does not know are skipped.
    let extended_report = [0x80, 207, 0, 1, 1, 2, 3, 4];
    assert!(matches!(single(&extended_report), Packet::Other { packet_type: 207, count: 0 }));
    let other_application = [0x8f, 206, 0, 3, 1, 2, 3, 4, 0, 0, 0, 0, b'A', b'B', b'C', b'D'];
    assert!(matches!(single(&other_application), Packet::Other { packet_type: 206, count: 15 }));
}

#[test]
fn losses_are_24_bits_with_sign() {
    // RFC 3550 §6.4.1 and A.3.
    let cases = [
        (-1, -1),
        (0x7f_ffff, 0x7f_ffff),
        (0x80_0000, 0x7f_ffff),
        (-0x80_0000, -0x80_0000),
        (i32::MIN, -0x80_0000),
    ];
    for (lost, expected) in cases {
        let packet = written(|out| write_receiver_report(out, SENDER, &[block(7, lost)]));
        let Packet::ReceiverReport(report) = single(&packet) else { panic!("not a report") };
        assert_eq!(report.sender, SENDER);
        assert_eq!(report.blocks.collect::<Vec<_>>(), [block(7, expected)]);
    }
}

#[test]
fn reports_hold_31_blocks() {
    let blocks = [block(7, 0); MAX_REPORT_BLOCKS + 1];
    let most = &blocks[..MAX_REPORT_BLOCKS];
    let packet = written(|out| write_sender_report(out, &INFO, most));
    let Packet::SenderReport(report) = single(&packet) else { panic!("not a report") };
    assert_eq!(report.blocks.count(), MAX_REPORT_BLOCKS);
    let mut out = [0; 1500];
    assert_eq!(write_sender_report(&mut out, &INFO, &blocks), None);
    assert_eq!(write_receiver_report(&mut out, SENDER, &blocks), None);
    assert_eq!(write_goodbye(&mut out, &[SENDER; 32]), None);
}

#[test]
fn descriptions_of_every_length_are_aligned() {
    // RFC 3550 §6.5: a chunk ends with one to four zeros.
    for len in 0..=MAX_CNAME_LEN {
        let cname = vec![b'a'; len];
        let packet = written(|out| write_cname(out, SENDER, &cname));
        assert_eq!(packet.len() % 4, 0);
        let Packet::SourceDescription(description) = single(&packet) else { panic!("not SDES") };
        let chunk = SourceDescriptionChunk { ssrc: SENDER, cname: Some(&cname) };
        assert_eq!(description.chunks().collect::<Vec<_>>(), [chunk]);
    }
    assert_eq!(write_cname(&mut [0; 500], SENDER, &[b'a'; 256]), None);
}

#[test]
fn descriptions_may_have_other_items_and_several_chunks() {
    let packet = [
        0x82, 202, 0, 6, //
        1, 2, 3, 4, 2, 1, b'n', 1, 1, b'a', 0, 0, // NAME, CNAME, end
        5, 6, 7, 8, 2, 1, b'n', 0, // NAME only
        0, 0, 0, 0, // not looked at
    ];
    let Packet::SourceDescription(description) = single(&packet) else { panic!("not SDES") };
    let expected = [
        SourceDescriptionChunk { ssrc: SENDER, cname: Some(b"a") },
        SourceDescriptionChunk { ssrc: MEDIA, cname: None },
    ];
    assert_eq!(description.chunks().collect::<Vec<_>>(), expected);
}

#[test]
fn a_description_without_end_is_malformed() {
    let unended = [0x81, 202, 0, 2, 1, 2, 3, 4, 1, 2, b'a', b'b'];
    assert!(packets(&unended)[0].is_err());
    let overlong = [0x81, 202, 0, 2, 1, 2, 3, 4, 1, 9, b'a', 0];
    assert!(packets(&overlong)[0].is_err());
}

#[test]
fn a_full_intra_request_names_each_stream() {
    // RFC 5104 §4.3.1.
    let entries = [FirEntry { ssrc: MEDIA, sequence: 255 }, FirEntry { ssrc: SENDER, sequence: 0 }];
    let packet = written(|out| write_full_intra_request(out, SENDER, &entries));
    assert_eq!(packet[..4], [0x84, 206, 0, 6]);
    let Packet::FullIntraRequest(request) = single(&packet) else { panic!("not FIR") };
    assert_eq!(request.sender, SENDER);
    assert_eq!(request.entries().collect::<Vec<_>>(), entries);
    assert_eq!(write_full_intra_request(&mut [0; 100], SENDER, &[]), None);
}

#[test]
fn feedback_without_entries_is_malformed() {
    for (first, second) in [(0x84, 206), (0x81, 205)] {
        let packet = [first, second, 0, 2, 1, 2, 3, 4, 5, 6, 7, 8];
        assert!(packets(&packet)[0].is_err());
    }
}

#[test]
fn a_nack_names_the_bits_behind_its_first() {
    // RFC 4585 §6.2.1: bit i stands for the packet i + 1 behind; numbers wrap.
    let packet = [0x81, 205, 0, 4, 1, 2, 3, 4, 5, 6, 7, 8, 0xff, 0xff, 0x80, 0x01, 0, 9, 0, 0];
    let Packet::Nack(nack) = single(&packet) else { panic!("not a NACK") };
    assert_eq!((nack.sender, nack.media), (SENDER, MEDIA));
    assert_eq!(nack.sequences().collect::<Vec<_>>(), [0xffff, 0, 15, 9]);
}

#[test]
fn a_bitrate_is_mantissa_and_exponent() {
    // draft-alvestrand-rmcat-remb-03 §2.2: 6 bits of exponent, 18 of mantissa.
    let packet = |exponent: u8, mantissa: u8| {
        let mut bytes = vec![0x8f, 206, 0, 5, 1, 2, 3, 4, 0, 0, 0, 0];
        bytes.extend([b'R', b'E', b'M', b'B', 1, exponent << 2, 0, mantissa, 5, 6, 7, 8]);
        bytes
    };
    let bytes = packet(10, 3);
    let Packet::MaxBitrate(limit) = single(&bytes) else { panic!("not REMB") };
    assert_eq!((limit.sender, limit.bitrate), (SENDER, 3072));
    assert_eq!(limit.streams().collect::<Vec<_>>(), [MEDIA]);
    assert!(packets(&packet(62, 3))[0].is_ok());
    assert!(packets(&packet(63, 3))[0].is_err(), "does not fit 64 bits");
}

/// NACKs for all of `sequences`, each in at most `room` bytes; what each of them names.
fn nacks(mut sequences: &[u16], room: usize) -> Vec<Vec<u16>> {
    let mut named = Vec::new();
    let mut out = vec![0xaa; room];
    while let Some(written) = write_nack(&mut out, SENDER, MEDIA, sequences.iter().copied()) {
        let Packet::Nack(nack) = single(&out[..written.len]) else { panic!("not a NACK") };
        assert_eq!((nack.sender, nack.media), (SENDER, MEDIA));
        named.push(nack.sequences().collect());
        sequences = &sequences[usize::from(written.covered)..];
    }
    assert!(sequences.is_empty());
    named
}

#[test]
fn a_nack_is_packed_into_as_few_entries_as_it_takes() {
    // RFC 4585 §6.2.1: 16 bits behind each first; numbers wrap.
    let packet = written(|out| {
        let sequences = [0xfffe, 0xffff, 14, 15, 40].into_iter();
        Some(write_nack(out, SENDER, MEDIA, sequences)?.len)
    });
    let expected = [
        0x81, 205, 0, 5, 1, 2, 3, 4, 5, 6, 7, 8, // header
        0xff, 0xfe, 0x80, 1, 0, 15, 0, 0, 0, 40, 0, 0,
    ];
    assert_eq!(packet, expected);
}

#[test]
fn a_nack_ends_where_the_room_ends() {
    let sequences: Vec<u16> = (0..100).collect();
    let named = nacks(&sequences, 12 + 2 * 4 + 3);
    assert_eq!(named.iter().map(Vec::len).collect::<Vec<_>>(), [34, 34, 32]);
    assert_eq!(named.concat(), sequences);
    assert_eq!(write_nack(&mut [0; 100], SENDER, MEDIA, std::iter::empty()), None);
    assert_eq!(write_nack(&mut [0; 15], SENDER, MEDIA, 0..1), None);
}

#[test]
fn a_bitrate_limit_has_the_drafts_layout() {
    // draft-alvestrand-rmcat-remb-03 §2.2: 2^18 is one too many for 18 bits of mantissa.
    let packet = written(|out| write_max_bitrate(out, SENDER, 1 << 18, &[MEDIA]));
    let expected = [
        0x8f,
        206,
        0,
        5,
        1,
        2,
        3,
        4,
        0,
        0,
        0,
        0, // header
        b'R',
        b'E',
        b'M',
        b'B',
        1,
        1 << 2 | 2,
        0,
        0,
        5,
        6,
        7,
        8,
    ];
    assert_eq!(packet, expected);
    assert_eq!(write_max_bitrate(&mut [0; 2000], SENDER, 1, &[MEDIA; 256]), None);
}

mod transport_cc {
    use super::*;

    const FIELDS: FeedbackFields =
        FeedbackFields { sender: SENDER, media: MEDIA, base_sequence: 0xfffe, feedback_count: 3 };

    fn feedback(packet: &[u8]) -> TransportCc<'_> {
        let Packet::TransportCc(feedback) = single(packet) else { panic!("not feedback") };
        feedback
    }

    fn write(arrivals: &[Option<i64>], room: usize) -> Option<(Vec<u8>, usize)> {
        let mut out = vec![0xaa; room];
        let written = write_transport_cc(&mut out, &FIELDS, arrivals.iter().copied())?;
        out.truncate(written.len);
        Some((out, usize::from(written.covered)))
    }

    /// The arrival times that a feedback tells, in ticks, for a first one below 2^31.
    fn read(packet: &[u8]) -> Vec<Option<i64>> {
        let feedback = feedback(packet);
        let mut time = i64::from(feedback.reference_time) * 256;
        let statuses = feedback.statuses().enumerate().map(|(index, (sequence, delta))| {
            assert_eq!(sequence, FIELDS.base_sequence.wrapping_add(index as u16));
            time += i64::from(delta.unwrap_or(0));
            delta.map(|_| time)
        });
        statuses.collect()
    }

    #[test]
    fn fields_stand_where_the_draft_says() {
        // §3.1, with §3.1.3's run of three small deltas.
        let (packet, covered) = write(&[Some(517), Some(519), Some(520)], 100).unwrap();
        let expected = [
            0x8f, 205, 0, 6, 1, 2, 3, 4, 5, 6, 7, 8, // header
            0xff, 0xfe, 0, 3, 0, 0, 2, 3, // base, count, reference time, feedback count
            0x20, 3, 5, 2, 1, 0, 0, 0, // run, deltas, padding
        ];
        assert_eq!((packet, covered), (expected.to_vec(), 3));
    }

    #[test]
    fn vectors_are_used_where_statuses_differ() {
        // §3.1.4: 14 statuses of one bit, or 7 of two bits when one has a large delta.
        let mut arrivals: Vec<_> = (0..14).map(|index| (index % 2 == 0).then_some(index)).collect();
        let (packet, _) = write(&arrivals, 100).unwrap();
        assert_eq!(packet[20..22], [0b1010_1010, 0b1010_1010]);
        assert_eq!(read(&packet), arrivals);
        arrivals[2] = Some(1000);
        let (packet, _) = write(&arrivals[..3], 100).unwrap();
        assert_eq!(packet[20..22], [0b1101_0010, 0]);
        assert_eq!(read(&packet), arrivals[..3]);
    }

    #[test]
    fn a_long_run_takes_one_chunk() {
        let mut arrivals = vec![None; 8000];
        arrivals.push(Some(0));
        let (packet, covered) = write(&arrivals, 100).unwrap();
        assert_eq!((packet.len(), covered), (28, 8001));
        assert_eq!(read(&packet), arrivals);
    }

    #[test]
    fn a_delta_that_does_not_fit_splits() {
        // §3.1.5: 16 bits with sign.
        let arrivals = [Some(0), Some(0x7fff), None, Some(0x7fff + 0x8000), Some(5)];
        let (packet, covered) = write(&arrivals, 100).unwrap();
        assert_eq!(covered, 3);
        assert_eq!(read(&packet), arrivals[..3]);
        let (packet, covered) = write(&arrivals[3..], 100).unwrap();
        assert_eq!(covered, 1, "the last one lies 16 s back");
        assert_eq!(read(&packet), arrivals[3..4]);
    }

    #[test]
    fn packets_that_overtook_have_negative_deltas() {
        let arrivals = [Some(1000), Some(990), Some(1001)];
        let (packet, _) = write(&arrivals, 100).unwrap();
        assert_eq!(read(&packet), arrivals);
    }

    #[test]
    fn the_reference_time_wraps_at_24_bits() {
        // §3.1: units of 64 ms, signed.
        let (packet, _) = write(&[Some((0x0180_0000 << 8) + 7)], 100).unwrap();
        assert_eq!(feedback(&packet).reference_time, -0x80_0000);
        assert_eq!(feedback(&packet).statuses().next(), Some((0xfffe, Some(7))));
        let (packet, _) = write(&[Some(-1)], 100).unwrap();
        assert_eq!(feedback(&packet).reference_time, -1);
        assert_eq!(feedback(&packet).statuses().next(), Some((0xfffe, Some(255))));
    }

    #[test]
    fn nothing_arrived_is_nothing_to_tell() {
        assert_eq!(write(&[], 100), None);
        assert_eq!(write(&[None; 10], 100), None);
    }

    #[test]
    fn the_number_of_statuses_is_bounded() {
        let arrivals: Vec<_> = (0..10_000).map(Some).collect();
        let (packet, covered) = write(&arrivals, 20_000).unwrap();
        assert_eq!(covered, usize::from(MAX_STATUSES));
        assert_eq!(read(&packet).len(), covered);
        let claims_more = [
            0x8f, 205, 0, 6, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0x20, 1, 0, 0, 0, 0, //
            0x1f, 0xff, 0x1f, 0xff, 0, 0, 0, 0,
        ];
        assert!(packets(&claims_more)[0].is_err());
    }

    #[test]
    fn chunks_that_lie_are_malformed() {
        let with_chunk = |status_count: u8, chunk: [u8; 4]| {
            let mut packet =
                vec![0x8f, 205, 0, 5, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, status_count, 0, 0, 0, 0];
            packet.extend(chunk);
            packets(&packet)[0].is_err()
        };
        assert!(!with_chunk(2, [0x20, 2, 1, 1]), "two small deltas");
        assert!(with_chunk(3, [0x20, 3, 1, 1]), "three small deltas in two bytes");
        assert!(with_chunk(2, [0x40, 2, 1, 1]), "two large deltas in two bytes");
        assert!(with_chunk(2, [0x60, 2, 1, 1]), "the reserved status, run");
        assert!(with_chunk(2, [0xf0, 0, 1, 1]), "the reserved status, vector");
        assert!(with_chunk(2, [0x00, 0, 0, 2]), "a run of nothing");
        assert!(with_chunk(2, [0x20, 1, 0, 0]), "statuses missing");
        assert!(with_chunk(0, [0x20, 0, 0, 0]), "no statuses");
    }

    proptest! {
        /// Feedbacks one behind the other tell all arrivals, whatever the room.
        #[test]
        fn splits_lose_nothing(
            steps in prop::collection::vec(
                (prop::option::weighted(0.8, prop_oneof![
                    8 => 0i64..40, 2 => -300i64..600, 1 => -50_000i64..50_000]), 1usize..12),
                1..60),
            room in 24usize..400,
        ) {
            let mut time = 1_000_000;
            let mut arrivals = Vec::new();
            for (step, times) in steps {
                for _ in 0..times {
                    time += step.unwrap_or(0);
                    arrivals.push(step.map(|_| time));
                }
            }
            let mut rest = &arrivals[..];
            while let Some((packet, covered)) = write(rest, room) {
                prop_assert!(packet.len() <= room);
                prop_assert!(covered > 0);
                prop_assert_eq!(&read(&packet)[..], &rest[..covered]);
                rest = &rest[covered..];
            }
            // What cannot be told has no arrival within the smallest packet's reach.
            prop_assert!(rest.iter().take(7).all(Option::is_none));
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_are_total(datagram in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(compound) = Compound::parse(&datagram) {
            prop_assert!(compound.count() <= MAX_PACKETS);
        }
    }

    /// NACKs one behind the other name every number and no other, in whatever order.
    #[test]
    fn nacks_name_what_was_given(
        sequences in prop::collection::vec(prop_oneof![0u16..40, 65_500u16.., any::<u16>()], 1..60),
        room in 16usize..60,
    ) {
        let named: BTreeSet<_> = nacks(&sequences, room).concat().into_iter().collect();
        prop_assert_eq!(named, sequences.into_iter().collect());
    }

    /// Rounded down, by less than one part in 2^17.
    #[test]
    fn bitrate_limits_never_say_more(bits in 0u32..=64, low: u64, streams in 0usize..=255) {
        let bitrate = low.checked_shr(64 - bits).unwrap_or(0);
        let packet = written(|out| write_max_bitrate(out, SENDER, bitrate, &vec![MEDIA; streams]));
        let Packet::MaxBitrate(limit) = single(&packet) else { panic!("not REMB") };
        prop_assert_eq!(limit.sender, SENDER);
        prop_assert!(limit.bitrate <= bitrate && bitrate - limit.bitrate <= bitrate >> 17);
        prop_assert_eq!(limit.streams().collect::<Vec<_>>(), vec![MEDIA; streams]);
    }

    /// Every writer notices every buffer that is too small.
    #[test]
    fn rooms_too_small_are_noticed(cname in prop::collection::vec(any::<u8>(), 0..20)) {
        let blocks = [block(7, 0); 2];
        let entries = [FirEntry { ssrc: MEDIA, sequence: 1 }];
        type Write<'a> = &'a dyn Fn(&mut [u8]) -> Option<usize>;
        let writers: [Write<'_>; 8] = [
            &|out| write_sender_report(out, &INFO, &blocks),
            &|out| write_receiver_report(out, SENDER, &blocks),
            &|out| write_cname(out, SENDER, &cname),
            &|out| write_goodbye(out, &[SENDER, MEDIA]),
            &|out| write_picture_loss(out, SENDER, MEDIA),
            &|out| write_full_intra_request(out, SENDER, &entries),
            &|out| write_max_bitrate(out, SENDER, 1 << 40, &[MEDIA; 2]),
            &|out| Some(write_nack(out, SENDER, MEDIA, std::iter::once(7))?.len),
        ];
        for write in writers {
            let needed = write(&mut [0; 200]).unwrap();
            for room in 0..needed {
                prop_assert_eq!(write(&mut vec![0; room]), None);
            }
            prop_assert_eq!(write(&mut vec![0; needed]), Some(needed));
        }
    }
}
