//! Bodies of the fuzz targets: read whatever comes, write it again, and insist on the same.
//!
//! Each takes any bytes and panics when a bug is found. The tests run them over the seed corpora,
//! with every cut and every flipped bit.

use std::collections::BTreeSet;

use arbitrary::{Arbitrary, Unstructured};

use crate::id::Codec;
use crate::wire::extension::{AbsSendTime, AudioLevel, Elements, TransportSequence};
use crate::wire::rtp::{Fields, Header, split_rtx, write_header};
use crate::wire::{
    MAX_DATAGRAM, Result, av1, demux, dependency, h264, is_key_frame, rtcp as wire_rtcp, vp8, vp9,
};
use wire_rtcp::{Compound, FeedbackFields, Packet, TransportCc};

/// A datagram's worth of bytes in a list of operations. They lie together in the fuzzer's input, behind
/// their length, so that it can copy and compare pieces of packets.
#[derive(Debug)]
pub struct Bytes(pub Vec<u8>);

impl<'a> Arbitrary<'a> for Bytes {
    fn arbitrary(input: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        let len = usize::from(input.arbitrary::<u16>()?) % (MAX_DATAGRAM + 1);
        Ok(Self(input.bytes(len.min(input.len()))?.to_vec()))
    }
}

/// Reads an RTP packet; rewrites its header as forwarding does, and reads it again.
///
/// # Panics
/// When the rewritten packet is not the same.
pub fn rtp(data: &[u8]) {
    let kind = demux::classify(data);
    let Ok(header) = Header::parse(data) else { return };
    assert!(matches!(kind, demux::Kind::Rtp | demux::Kind::Rtcp));
    let elements: Vec<_> = Elements::of(&header, data).collect();
    for (_, value) in &elements {
        same_value(value);
    }
    let payload = header.payload(data);
    assert!(!header.is_padding_only(data) || payload == Ok(&[]));
    if let Some((original, rest)) = payload.ok().and_then(split_rtx) {
        let mut out = vec![0; 2 + rest.len()];
        assert_eq!(super::rtp::write_rtx(&mut out, original, rest), Some(out.len()));
        assert_eq!(split_rtx(&out), Some((original, rest)));
    }

    let fields = Fields::of(&header);
    let mut out = vec![0; data.len()];
    let len = write_header(&mut out, &fields, |writer| {
        for (id, value) in &elements {
            writer.push(*id, value);
        }
    });
    // Never longer than what was read: padding, CSRCs and what is not understood are left out.
    let len = len.expect("room for the header");
    let behind = &data[usize::from(header.len)..];
    out.truncate(len);
    out.extend_from_slice(behind);
    let again = Header::parse(&out).expect("what is written can be read");
    assert_eq!((Fields::of(&again), usize::from(again.len)), (fields, len));
    assert_eq!(again.payload(&out), payload);
    assert!(Elements::of(&again, &out).eq(elements));
}

fn same_value(value: &[u8]) {
    if let Some(level) = AudioLevel::parse(value) {
        assert_eq!(level.to_bytes(), value);
    }
    if let Some(time) = AbsSendTime::parse(value) {
        assert_eq!(time.to_bytes(), value);
    }
    if let Some(sequence) = TransportSequence::parse(value) {
        assert_eq!(sequence.to_bytes(), value);
    }
    let _ = dependency::Descriptor::parse(value);
}

/// Walks an RTCP compound; rewrites what can be written, and reads it again. Also takes the bytes
/// for arrival times and writes feedback about them.
///
/// # Panics
/// When something comes back changed.
pub fn rtcp(data: &[u8]) {
    feedback_of_arrivals(data);
    let Ok(compound) = Compound::parse(data) else { return };
    let mut count = 0;
    for packet in compound {
        count += 1;
        if let Ok(packet) = packet {
            same_packet(&packet);
        }
    }
    assert!((1..=wire_rtcp::MAX_PACKETS).contains(&count));
}

fn same_packet(packet: &Packet<'_>) {
    let mut out = [0; 4096];
    let out = &mut out[..];
    match packet {
        Packet::SenderReport(report) => {
            let blocks: Vec<_> = report.blocks.clone().collect();
            let len = wire_rtcp::write_sender_report(out, &report.info, &blocks);
            let Packet::SenderReport(again) = only_packet(out, len) else { panic!("not SR") };
            assert_eq!(again.info, report.info);
            assert!(again.blocks.eq(blocks));
        }
        Packet::ReceiverReport(report) => {
            let blocks: Vec<_> = report.blocks.clone().collect();
            let len = wire_rtcp::write_receiver_report(out, report.sender, &blocks);
            let Packet::ReceiverReport(again) = only_packet(out, len) else { panic!("not RR") };
            assert_eq!(again.sender, report.sender);
            assert!(again.blocks.eq(blocks));
        }
        Packet::SourceDescription(description) => {
            assert!(description.chunks().count() <= 31);
            for chunk in description.chunks() {
                let Some(cname) = chunk.cname else { continue };
                let len = wire_rtcp::write_cname(out, chunk.ssrc, cname);
                let Packet::SourceDescription(again) = only_packet(out, len) else {
                    panic!("not SDES")
                };
                assert!(again.chunks().eq([chunk]));
            }
        }
        Packet::Goodbye(goodbye) => {
            let sources: Vec<_> = goodbye.sources().collect();
            let len = wire_rtcp::write_goodbye(out, &sources);
            let Packet::Goodbye(again) = only_packet(out, len) else { panic!("not BYE") };
            assert!(again.sources().eq(sources));
        }
        Packet::PictureLoss(loss) => {
            let len = wire_rtcp::write_picture_loss(out, loss.sender, loss.media);
            let Packet::PictureLoss(again) = only_packet(out, len) else { panic!("not PLI") };
            assert_eq!(again, *loss);
        }
        Packet::FullIntraRequest(request) => {
            // The fuzzer's inputs may be longer than any datagram.
            let entries: Vec<_> = request.entries().take(400).collect();
            let len = wire_rtcp::write_full_intra_request(out, request.sender, &entries);
            let Packet::FullIntraRequest(again) = only_packet(out, len) else { panic!("not FIR") };
            assert!(again.entries().eq(entries));
        }
        Packet::TransportCc(feedback) => same_feedback(feedback),
        Packet::Nack(nack) => {
            let sequences: Vec<_> = nack.sequences().take(500).collect();
            let numbers = sequences.iter().copied();
            let written = wire_rtcp::write_nack(out, nack.sender, nack.media, numbers);
            let written = written.expect("it fits");
            assert_eq!(usize::from(written.covered), sequences.len());
            let Packet::Nack(again) = only_packet(out, Some(written.len)) else {
                panic!("not a NACK")
            };
            let as_set = |sequences: Vec<u16>| BTreeSet::from_iter(sequences);
            assert_eq!(as_set(again.sequences().collect()), as_set(sequences));
        }
        Packet::MaxBitrate(limit) => {
            let streams: Vec<_> = limit.streams().collect();
            let len = wire_rtcp::write_max_bitrate(out, limit.sender, limit.bitrate, &streams);
            let Packet::MaxBitrate(again) = only_packet(out, len) else { panic!("not REMB") };
            assert_eq!((again.sender, again.bitrate), (limit.sender, limit.bitrate));
            assert!(again.streams().eq(streams));
        }
        Packet::Other { .. } => {}
    }
}

/// The single packet that was written to the start of `out`.
fn only_packet(out: &[u8], len: Option<usize>) -> Packet<'_> {
    let len = len.expect("it fits");
    let mut packets = Compound::parse(&out[..len]).expect("what is written can be read");
    let packet = packets.next().expect("a packet").expect("a well-formed one");
    assert!(packets.next().is_none());
    packet
}

/// Writes what was read, and compares.
fn same_feedback(feedback: &TransportCc<'_>) {
    let statuses: Vec<_> = feedback.statuses().collect();
    assert_eq!(statuses.len(), usize::from(feedback.status_count));
    let arrivals = arrivals_of(feedback);
    let fields = FeedbackFields {
        sender: feedback.sender,
        media: feedback.media,
        base_sequence: feedback.base_sequence,
        feedback_count: feedback.feedback_count,
    };
    let mut out = vec![0; 24 + 4 * arrivals.len()];
    let written = wire_rtcp::write_transport_cc(&mut out, &fields, arrivals.iter().copied());
    let Some(written) = written else {
        assert!(arrivals.iter().all(Option::is_none));
        return;
    };
    assert_eq!(usize::from(written.covered), arrivals.len());
    let Packet::TransportCc(again) = only_packet(&out, Some(written.len)) else {
        panic!("not feedback")
    };
    assert_eq!((again.sender, again.media), (feedback.sender, feedback.media));
    assert_eq!(again.feedback_count, feedback.feedback_count);
    assert!(again.statuses().map(|(sequence, _)| sequence).eq(statuses.iter().map(|s| s.0)));
    // The 24 bits of the reference time may wrap between the two.
    let wrap = 1 << 32;
    let times = arrivals_of(&again).into_iter().map(|time| time.map(|t| i64::rem_euclid(t, wrap)));
    assert!(times.eq(arrivals.into_iter().map(|time| time.map(|t| t.rem_euclid(wrap)))));
}

/// When each packet arrived, in ticks of 250 µs.
fn arrivals_of(feedback: &TransportCc<'_>) -> Vec<Option<i64>> {
    let mut time = i64::from(feedback.reference_time) * 256;
    let arrivals = feedback.statuses().map(|(_, delta)| {
        time += i64::from(delta?);
        Some(time)
    });
    arrivals.collect()
}

/// Takes the first byte for the room (in words), and each further pair for the time since the
/// arrival before (in units of 8 ticks, so that some do not fit), or zeros for a packet that is lost.
fn feedback_of_arrivals(data: &[u8]) {
    let Some((&room, steps)) = data.split_first() else { return };
    let mut time = 0;
    let arrivals: Vec<_> = steps
        .as_chunks()
        .0
        .iter()
        .map(|&step| {
            time += i64::from(i16::from_be_bytes(step)) * 8;
            (step != [0, 0]).then_some(time)
        })
        .collect();
    let fields = FeedbackFields {
        sender: crate::id::Ssrc(1),
        media: crate::id::Ssrc(2),
        base_sequence: u16::from(room) << 8,
        feedback_count: room,
    };
    let mut out = vec![0; usize::from(room) * 4];
    let mut rest = &arrivals[..];
    while let Some(written) = wire_rtcp::write_transport_cc(&mut out, &fields, rest.iter().copied())
    {
        let Packet::TransportCc(feedback) = only_packet(&out, Some(written.len)) else {
            panic!("not feedback")
        };
        let (told, untold) = rest.split_at(written.covered.into());
        assert_eq!(arrivals_of(&feedback), told);
        assert!(!told.is_empty());
        rest = untold;
    }
}

/// Reads the bytes as a payload of every codec, and as a dependency descriptor.
///
/// # Panics
/// When a descriptor reaches beyond its payload, or when the answers contradict each other.
pub fn descriptors(data: &[u8]) {
    let vp8 = vp8::Descriptor::parse(data);
    assert!(vp8.is_ok_and(|found| found.len <= data.len()) || vp8.is_err());
    assert!(vp8::key_frame_size(data).is_none() || is_key_frame(Codec::Vp8, data));
    let vp9 = vp9::Descriptor::parse(data);
    assert!(vp9.is_ok_and(|found| found.len <= data.len()) || vp9.is_err());
    key_frame_is_well_formed(Codec::Vp8, data, vp8);
    key_frame_is_well_formed(Codec::Vp9, data, vp9);
    key_frame_is_well_formed(Codec::H264, data, h264::Descriptor::parse(data));
    key_frame_is_well_formed(Codec::Av1, data, av1::Descriptor::parse(data));
    let _ = dependency::Descriptor::parse(data);
}

fn key_frame_is_well_formed<T>(codec: Codec, payload: &[u8], descriptor: Result<T>) {
    assert!(descriptor.is_ok() || !is_key_frame(codec, payload), "{codec:?}");
}

/// The seed corpora, for tests.
#[cfg(test)]
pub(crate) mod seeds {
    use std::path::Path;

    /// Letters of the names that libFuzzer gives to what it finds; seeds have names that say what they are.
    const FOUND_NAME_LEN: usize = 40;

    /// The seeds of a target.
    pub fn of(target: &str) -> Vec<Vec<u8>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
        let files = std::fs::read_dir(folder).expect("the target's corpus");
        let paths = files.map(|file| file.expect("a file").path());
        let seeds =
            paths.filter(|path| path.file_name().is_some_and(|n| n.len() != FOUND_NAME_LEN));
        seeds.map(|path| std::fs::read(path).expect("a seed")).collect()
    }

    /// Runs `body` on every beginning of every seed, and on every seed with a bit flipped: `bits` of each
    /// byte, one at a time, beginning with another in each.
    pub fn sweep(target: &str, bits: usize, body: impl Fn(&[u8])) {
        let seeds = of(target);
        assert!(!seeds.is_empty(), "no seeds for {target}");
        seeds.iter().for_each(|seed| damage(seed, bits, &body));
    }

    /// The same with one seed.
    pub fn damage(seed: &[u8], bits: usize, body: impl Fn(&[u8])) {
        for len in 0..=seed.len() {
            body(&seed[..len]);
        }
        let mut seed = seed.to_vec();
        for at in 0..seed.len() {
            for bit in (at..at + bits).map(|bit| bit % 8) {
                seed[at] ^= 1 << bit;
                body(&seed);
                seed[at] ^= 1 << bit;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::seeds::sweep;
    use super::*;

    #[test]
    fn damaged_rtp_never_panics() {
        sweep("rtp", 8, rtp);
    }

    #[test]
    fn damaged_rtcp_never_panics() {
        sweep("rtcp", 8, rtcp);
    }

    #[test]
    fn damaged_stun_never_panics() {
        sweep("stun", 8, crate::wire::stun::fuzz);
    }

    #[test]
    fn damaged_payloads_never_panic() {
        sweep("descriptors", 8, descriptors);
    }

    #[test]
    fn the_seeds_are_well_formed() {
        for seed in seeds::of("rtp") {
            assert!(Header::parse(&seed).is_ok_and(|header| header.payload(&seed).is_ok()));
        }
        for seed in seeds::of("rtcp") {
            assert!(Compound::parse(&seed).unwrap().all(|packet| packet.is_ok()));
        }
    }

    #[test]
    fn key_frames_are_told_for_every_codec() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/descriptors");
        let is_key = |codec, name| is_key_frame(codec, &std::fs::read(folder.join(name)).unwrap());
        assert!(is_key(Codec::Vp8, "vp8_key") && !is_key(Codec::Vp8, "vp8_delta"));
        assert!(is_key(Codec::Vp9, "vp9_key_svc") && !is_key(Codec::Vp9, "vp9_delta"));
        assert!(is_key(Codec::H264, "h264_parameter_sets") && !is_key(Codec::H264, "h264_delta"));
        assert!(is_key(Codec::Av1, "av1_key") && !is_key(Codec::Av1, "av1_delta"));
        assert!(is_key_frame(Codec::Opus, &[]), "audio needs no other packet");
    }
}
