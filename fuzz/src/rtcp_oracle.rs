//! RTCP compounds beside the crate `rtcp`.

use std::any::Any;

use bytes::Bytes;
use rtcp::goodbye::Goodbye;
use rtcp::packet::Packet as TheirPacket;
use rtcp::payload_feedbacks::full_intra_request::FullIntraRequest;
use rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtcp::payload_feedbacks::receiver_estimated_maximum_bitrate::ReceiverEstimatedMaximumBitrate;
use rtcp::receiver_report::ReceiverReport;
use rtcp::reception_report::ReceptionReport;
use rtcp::sender_report::SenderReport;
use rtcp::source_description::{SdesType, SourceDescription};
use rtcp::transport_feedbacks::transport_layer_cc::{
    PacketStatusChunk, SymbolTypeTcc, TransportLayerCc,
};
use rtcp::transport_feedbacks::transport_layer_nack::TransportLayerNack;
use shardcast::wire::rtcp::{
    Compound, MaxBitrate, Packet, ReportBlock, SourceDescription as OurDescription, TransportCc,
};

use webrtc_util::marshal::Marshal;

use crate::theirs;

/// Of a packet's first byte (RFC 3550 §6.4.1).
const PADDING_BIT: u8 = 0x20;

/// Reads `data` with both.
///
/// Known of `rtcp` 0.17, and not compared: it panics on some bodies; it takes padding for content; a
/// description ends for it at an item of a type that it does not know (RFC 3550 §6.5 wants it passed over).
///
/// # Panics
/// When both accept all of it, and disagree.
pub fn rtcp(data: &[u8]) {
    let Ok(compound) = Compound::parse(data) else { return };
    let packets = packets(data);
    if packets.iter().any(|packet| packet[0] & PADDING_BIT != 0) {
        return;
    }
    let Ok(ours) = compound.collect::<Result<Vec<_>, _>>() else { return };
    let read = theirs(|| rtcp::packet::unmarshal(&mut Bytes::copy_from_slice(data)));
    let Some(Ok(theirs)) = read else { return };
    assert_eq!(ours.len(), theirs.len());
    for ((ours, theirs), bytes) in ours.iter().zip(&theirs).zip(packets) {
        same_packet(bytes, ours, &**theirs);
    }
}

/// The bytes of each packet of a well-framed compound.
fn packets(mut data: &[u8]) -> Vec<&[u8]> {
    let mut packets = Vec::new();
    while let Some(&[_, _, high, low]) = data.first_chunk() {
        let (packet, rest) = data.split_at(4 + usize::from(u16::from_be_bytes([high, low])) * 4);
        packets.push(packet);
        data = rest;
    }
    packets
}

fn same_packet(bytes: &[u8], ours: &Packet<'_>, theirs: &(dyn TheirPacket + Send + Sync)) {
    let theirs = theirs.as_any();
    match ours {
        Packet::SenderReport(ours) => {
            let theirs: &SenderReport = of_kind(theirs);
            let info = &ours.info;
            assert_eq!(
                (info.ssrc.0, info.ntp, info.rtp),
                (theirs.ssrc, theirs.ntp_time, theirs.rtp_time)
            );
            assert_eq!((info.packets, info.octets), (theirs.packet_count, theirs.octet_count));
            same_blocks(ours.blocks.clone(), &theirs.reports);
        }
        Packet::ReceiverReport(ours) => {
            let theirs: &ReceiverReport = of_kind(theirs);
            assert_eq!(ours.sender.0, theirs.ssrc);
            same_blocks(ours.blocks.clone(), &theirs.reports);
        }
        Packet::SourceDescription(ours) => {
            let theirs: &SourceDescription = of_kind(theirs);
            // They have read all of it if they write it as it was.
            if theirs.marshal().is_ok_and(|own| own == bytes) {
                same_description(ours, theirs);
            }
        }
        Packet::Goodbye(ours) => {
            let theirs: &Goodbye = of_kind(theirs);
            assert!(ours.sources().map(|ssrc| ssrc.0).eq(theirs.sources.iter().copied()));
        }
        Packet::Nack(ours) => {
            let theirs: &TransportLayerNack = of_kind(theirs);
            assert_eq!((ours.sender.0, ours.media.0), (theirs.sender_ssrc, theirs.media_ssrc));
            let numbers = theirs.nacks.iter().flat_map(|pair| pair.packet_list());
            assert!(ours.sequences().eq(numbers));
        }
        Packet::TransportCc(ours) => same_feedback(ours, of_kind(theirs)),
        Packet::PictureLoss(ours) => {
            let theirs: &PictureLossIndication = of_kind(theirs);
            assert_eq!((ours.sender.0, ours.media.0), (theirs.sender_ssrc, theirs.media_ssrc));
        }
        Packet::FullIntraRequest(ours) => {
            let theirs: &FullIntraRequest = of_kind(theirs);
            assert_eq!(ours.sender.0, theirs.sender_ssrc);
            let entries = theirs.fir.iter().map(|entry| (entry.ssrc, entry.sequence_number));
            assert!(ours.entries().map(|entry| (entry.ssrc.0, entry.sequence)).eq(entries));
        }
        Packet::MaxBitrate(ours) => same_bitrate(ours, of_kind(theirs)),
        Packet::Other { .. } => {}
    }
}

fn of_kind<T: 'static>(theirs: &dyn Any) -> &T {
    theirs.downcast_ref().expect("the same kind of packet")
}

fn same_blocks(ours: impl Iterator<Item = ReportBlock>, theirs: &[ReceptionReport]) {
    let ours = ours.map(|block| ReceptionReport {
        ssrc: block.ssrc.0,
        fraction_lost: block.fraction_lost,
        // Their field has no sign: 24 bits as they are.
        total_lost: block.cumulative_lost as u32 & 0xff_ffff,
        last_sequence_number: block.highest_sequence,
        jitter: block.jitter,
        last_sender_report: block.last_sr,
        delay: block.delay_since_last_sr,
    });
    assert!(ours.eq(theirs.iter().cloned()));
}

fn same_description(ours: &OurDescription<'_>, theirs: &SourceDescription) {
    let theirs = theirs.chunks.iter().map(|chunk| {
        let mut items = chunk.items.iter();
        let cname = items.find(|item| item.sdes_type == SdesType::SdesCname);
        (chunk.source, cname.map(|item| &item.text[..]))
    });
    assert!(ours.chunks().map(|chunk| (chunk.ssrc.0, chunk.cname)).eq(theirs));
}

/// A number that they can tell from others: they read 0 as 2^23, and hold 24 bits of it.
fn same_bitrate(ours: &MaxBitrate<'_>, theirs: &ReceiverEstimatedMaximumBitrate) {
    assert_eq!(ours.sender.0, theirs.sender_ssrc);
    assert!(ours.streams().map(|ssrc| ssrc.0).eq(theirs.ssrcs.iter().copied()));
    if (1..1 << 63).contains(&ours.bitrate) {
        assert_eq!(ours.bitrate as f32, theirs.bitrate);
    }
}

fn same_feedback(ours: &TransportCc<'_>, theirs: &TransportLayerCc) {
    assert_eq!((ours.sender.0, ours.media.0), (theirs.sender_ssrc, theirs.media_ssrc));
    assert_eq!(ours.base_sequence, theirs.base_sequence_number);
    assert_eq!(ours.feedback_count, theirs.fb_pkt_count);
    assert_eq!(ours.reference_time as u32 & 0xff_ffff, theirs.reference_time);
    let symbols = theirs.packet_chunks.iter().flat_map(|chunk| match chunk {
        PacketStatusChunk::RunLengthChunk(run) => {
            vec![run.packet_status_symbol; run.run_length.into()]
        }
        PacketStatusChunk::StatusVectorChunk(vector) => vector.symbol_list.clone(),
    });
    let mut deltas = theirs.recv_deltas.iter();
    let statuses = symbols.take(theirs.packet_status_count.into()).map(|symbol| match symbol {
        SymbolTypeTcc::PacketNotReceived => None,
        _ => deltas.next().map(|delta| delta.delta / 250),
    });
    let ours: Vec<_> = ours.statuses().map(|(_, delta)| delta.map(i64::from)).collect();
    assert_eq!(ours, statuses.collect::<Vec<_>>());
}
