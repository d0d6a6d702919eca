//! RTP and RTCP against the crates `rtp` and `rtcp`: what they write we read with the same fields,
//! and the other way round. Only well-formed data goes in: those crates panic on lying lengths.

use bytes::Bytes;
use proptest::prelude::*;
use shardcast::id::{PayloadType, Ssrc};
use shardcast::wire::extension::Elements;
use shardcast::wire::rtcp as ours;
use shardcast::wire::rtp::{Fields, Header, write_header};
use webrtc_util::marshal::{Marshal, Unmarshal};

type Theirs = Box<dyn rtcp::packet::Packet + Send + Sync>;

/// What `write` puts into a buffer.
fn written(write: impl FnOnce(&mut [u8]) -> Option<usize>) -> Bytes {
    let mut out = vec![0xaa; 4000];
    let len = write(&mut out).expect("it fits");
    out.truncate(len);
    out.into()
}

/// Their reading of our RTCP; every packet must be of their kind `T`.
fn read_by_them<T: Clone + 'static>(mut datagram: Bytes) -> Vec<T> {
    let packets: Vec<Theirs> = rtcp::packet::unmarshal(&mut datagram).expect("they read it");
    let of_kind = packets.iter().map(|packet| packet.as_any().downcast_ref::<T>().cloned());
    of_kind.collect::<Option<_>>().expect("the kind that was written")
}

/// Our reading of a datagram with one RTCP packet.
fn read_by_us(datagram: &[u8]) -> ours::Packet<'_> {
    let mut packets = ours::Compound::parse(datagram).expect("well framed");
    let packet = packets.next().expect("a packet").expect("well formed");
    assert!(packets.next().is_none());
    packet
}

mod rtp_packets {
    use super::*;

    #[derive(Clone, Debug)]
    struct Packet {
        fields: Fields,
        elements: Vec<(u8, Vec<u8>)>,
        payload: Vec<u8>,
    }

    fn elements() -> impl Strategy<Value = Vec<(u8, Vec<u8>)>> {
        let one_byte =
            prop::collection::btree_map(1u8..15, prop::collection::vec(any::<u8>(), 1..=16), 0..6);
        let two_byte =
            prop::collection::btree_map(1u8.., prop::collection::vec(any::<u8>(), 0..40), 0..6);
        prop_oneof![one_byte, two_byte].prop_map(|elements| elements.into_iter().collect())
    }

    prop_compose! {
        fn packet()(
            (marker, sequence, timestamp, ssrc) in any::<(bool, u16, u32, u32)>(),
            payload_type in 0u8..128,
            elements in elements(),
            payload in prop::collection::vec(any::<u8>(), 0..100),
        ) -> Packet {
            let (payload_type, ssrc) = (PayloadType(payload_type), Ssrc(ssrc));
            let fields =
                Fields { padding: false, marker, payload_type, sequence, timestamp, ssrc };
            Packet { fields, elements, payload }
        }
    }

    /// The form that RFC 8285 §4.1.2 leaves the choice of.
    fn profile(elements: &[(u8, Vec<u8>)]) -> u16 {
        let small = |(id, data): &(u8, Vec<u8>)| *id < 15 && (1..=16).contains(&data.len());
        if elements.iter().all(small) { 0xBEDE } else { 0x1000 }
    }

    proptest! {
        #[test]
        fn we_read_what_they_write(packet in packet(), csrc in prop::collection::vec(0u32.., 0..16)) {
            let fields = packet.fields;
            let mut header = rtp::header::Header {
                version: 2,
                marker: fields.marker,
                payload_type: fields.payload_type.0,
                sequence_number: fields.sequence,
                timestamp: fields.timestamp,
                ssrc: fields.ssrc.0,
                csrc,
                extension: !packet.elements.is_empty(),
                extension_profile: profile(&packet.elements),
                ..Default::default()
            };
            for (id, data) in &packet.elements {
                header.set_extension(*id, data.clone().into()).unwrap();
            }
            let payload = packet.payload.clone().into();
            let bytes = rtp::packet::Packet { header, payload }.marshal().unwrap();

            let header = Header::parse(&bytes).unwrap();
            prop_assert_eq!(Fields::of(&header), fields);
            prop_assert_eq!(header.payload(&bytes), Ok(&packet.payload[..]));
            let found: Vec<_> =
                Elements::of(&header, &bytes).map(|(id, data)| (id, data.to_vec())).collect();
            prop_assert_eq!(found, packet.elements);
        }

        #[test]
        fn they_read_what_we_write(packet in packet()) {
            let fields = packet.fields;
            let mut bytes = written(|out| write_header(out, &fields, |writer| {
                for (id, data) in &packet.elements {
                    writer.push(*id, data);
                }
            })).to_vec();
            bytes.extend(&packet.payload);

            let read = rtp::packet::Packet::unmarshal(&mut Bytes::from(bytes)).unwrap();
            prop_assert_eq!(read.header.version, 2);
            prop_assert_eq!(read.header.marker, fields.marker);
            prop_assert_eq!(read.header.payload_type, fields.payload_type.0);
            prop_assert_eq!(read.header.sequence_number, fields.sequence);
            prop_assert_eq!(read.header.timestamp, fields.timestamp);
            prop_assert_eq!(read.header.ssrc, fields.ssrc.0);
            prop_assert_eq!(read.header.csrc, Vec::<u32>::new());
            let extensions = read.header.extensions.into_iter();
            let found: Vec<_> =
                extensions.map(|extension| (extension.id, extension.payload.to_vec())).collect();
            prop_assert_eq!(found, packet.elements);
            prop_assert_eq!(&read.payload[..], &packet.payload[..]);
        }
    }
}

mod reports {
    use super::*;
    use rtcp::receiver_report::ReceiverReport;
    use rtcp::reception_report::ReceptionReport;
    use rtcp::sender_report::SenderReport;

    prop_compose! {
        fn block()(
            (ssrc, fraction_lost, highest_sequence) in any::<(u32, u8, u32)>(),
            // Their field has no sign.
            cumulative_lost in 0i32..1 << 23,
            (jitter, last_sr, delay_since_last_sr) in any::<(u32, u32, u32)>(),
        ) -> ours::ReportBlock {
            ours::ReportBlock {
                ssrc: Ssrc(ssrc),
                fraction_lost,
                cumulative_lost,
                highest_sequence,
                jitter,
                last_sr,
                delay_since_last_sr,
            }
        }
    }

    prop_compose! {
        fn info()((ssrc, ntp, rtp, packets, octets) in any::<(u32, u64, u32, u32, u32)>())
        -> ours::SenderInfo {
            ours::SenderInfo { ssrc: Ssrc(ssrc), ntp, rtp, packets, octets }
        }
    }

    fn blocks() -> impl Strategy<Value = Vec<ours::ReportBlock>> {
        prop::collection::vec(block(), 0..=ours::MAX_REPORT_BLOCKS)
    }

    fn as_theirs(blocks: &[ours::ReportBlock]) -> Vec<ReceptionReport> {
        let blocks = blocks.iter().map(|block| ReceptionReport {
            ssrc: block.ssrc.0,
            fraction_lost: block.fraction_lost,
            total_lost: block.cumulative_lost as u32,
            last_sequence_number: block.highest_sequence,
            jitter: block.jitter,
            last_sender_report: block.last_sr,
            delay: block.delay_since_last_sr,
        });
        blocks.collect()
    }

    proptest! {
        #[test]
        fn sender_reports(info in info(), blocks in blocks()) {
            let theirs = SenderReport {
                ssrc: info.ssrc.0,
                ntp_time: info.ntp,
                rtp_time: info.rtp,
                packet_count: info.packets,
                octet_count: info.octets,
                reports: as_theirs(&blocks),
                profile_extensions: Bytes::new(),
            };
            let bytes = written(|out| ours::write_sender_report(out, &info, &blocks));
            prop_assert_eq!(&bytes, &theirs.marshal().unwrap());
            let ours::Packet::SenderReport(read) = read_by_us(&bytes) else { panic!("not SR") };
            prop_assert_eq!(read.info, info);
            prop_assert_eq!(read.blocks.collect::<Vec<_>>(), blocks);
            prop_assert_eq!(read_by_them::<SenderReport>(bytes), [theirs]);
        }

        #[test]
        fn receiver_reports(sender: u32, blocks in blocks()) {
            let theirs = ReceiverReport {
                ssrc: sender,
                reports: as_theirs(&blocks),
                profile_extensions: Bytes::new(),
            };
            let bytes = written(|out| ours::write_receiver_report(out, Ssrc(sender), &blocks));
            prop_assert_eq!(&bytes, &theirs.marshal().unwrap());
            let ours::Packet::ReceiverReport(read) = read_by_us(&bytes) else { panic!("not RR") };
            prop_assert_eq!(read.sender, Ssrc(sender));
            prop_assert_eq!(read.blocks.collect::<Vec<_>>(), blocks);
            prop_assert_eq!(read_by_them::<ReceiverReport>(bytes), [theirs]);
        }
    }
}

mod sources {
    use super::*;
    use rtcp::goodbye::Goodbye;
    use rtcp::source_description::{
        SdesType, SourceDescription, SourceDescriptionChunk, SourceDescriptionItem,
    };

    fn description(chunks: &[(u32, String)], with_name: bool) -> SourceDescription {
        let item = |sdes_type, text: &str| SourceDescriptionItem {
            sdes_type,
            text: Bytes::copy_from_slice(text.as_bytes()),
        };
        let chunk = |(source, cname): &(u32, String)| {
            let name = with_name.then(|| item(SdesType::SdesName, "someone"));
            let cname = item(SdesType::SdesCname, cname);
            let items = name.into_iter().chain([cname]).collect();
            SourceDescriptionChunk { source: *source, items }
        };
        SourceDescription { chunks: chunks.iter().map(chunk).collect() }
    }

    proptest! {
        #[test]
        fn descriptions(
            chunks in prop::collection::vec((0u32.., "[ -~]{0,60}"), 1..=31),
            with_name: bool,
        ) {
            let bytes = description(&chunks, with_name).marshal().unwrap();
            let ours::Packet::SourceDescription(read) = read_by_us(&bytes) else {
                panic!("not SDES")
            };
            let read = read.chunks().map(|chunk| (chunk.ssrc.0, chunk.cname));
            let expected: Vec<_> =
                chunks.iter().map(|(ssrc, cname)| (*ssrc, Some(cname.as_bytes()))).collect();
            prop_assert_eq!(read.collect::<Vec<_>>(), expected);
        }

        #[test]
        fn canonical_names(ssrc: u32, cname in "[ -~]{0,255}") {
            let bytes = written(|out| ours::write_cname(out, Ssrc(ssrc), cname.as_bytes()));
            let theirs = description(&[(ssrc, cname)], false);
            prop_assert_eq!(read_by_them::<SourceDescription>(bytes), [theirs]);
        }

        #[test]
        fn goodbyes(sources in prop::collection::vec(0u32.., 0..=31), reason in "[a-z]{0,20}") {
            let theirs = Goodbye { sources: sources.clone(), reason: reason.into() };
            let bytes = theirs.marshal().unwrap();
            let ours::Packet::Goodbye(read) = read_by_us(&bytes) else { panic!("not BYE") };
            prop_assert_eq!(read.sources().map(|ssrc| ssrc.0).collect::<Vec<_>>(), &sources[..]);

            let ssrcs: Vec<_> = sources.iter().copied().map(Ssrc).collect();
            let bytes = written(|out| ours::write_goodbye(out, &ssrcs));
            let theirs = Goodbye { sources, reason: Bytes::new() };
            prop_assert_eq!(read_by_them::<Goodbye>(bytes), [theirs]);
        }
    }
}

mod feedback {
    use super::*;
    use rtcp::payload_feedbacks::full_intra_request::{FirEntry, FullIntraRequest};
    use rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
    use rtcp::payload_feedbacks::receiver_estimated_maximum_bitrate::ReceiverEstimatedMaximumBitrate;
    use rtcp::transport_feedbacks::transport_layer_nack::{
        TransportLayerNack, nack_pairs_from_sequence_numbers,
    };
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn picture_losses(sender: u32, media: u32) {
            let theirs = PictureLossIndication { sender_ssrc: sender, media_ssrc: media };
            let bytes = written(|out| ours::write_picture_loss(out, Ssrc(sender), Ssrc(media)));
            prop_assert_eq!(&bytes, &theirs.marshal().unwrap());
            let ours::Packet::PictureLoss(read) = read_by_us(&bytes) else { panic!("not PLI") };
            prop_assert_eq!((read.sender, read.media), (Ssrc(sender), Ssrc(media)));
            prop_assert_eq!(read_by_them::<PictureLossIndication>(bytes), [theirs]);
        }

        #[test]
        fn full_intra_requests(
            sender: u32,
            entries in prop::collection::vec((0u32.., 0u8..), 1..20),
        ) {
            let fir = entries.iter().map(|&(ssrc, sequence_number)| FirEntry { ssrc, sequence_number });
            let theirs =
                FullIntraRequest { sender_ssrc: sender, media_ssrc: 0, fir: fir.collect() };
            let entries: Vec<_> = entries
                .iter()
                .map(|&(ssrc, sequence)| ours::FirEntry { ssrc: Ssrc(ssrc), sequence })
                .collect();
            let bytes =
                written(|out| ours::write_full_intra_request(out, Ssrc(sender), &entries));
            prop_assert_eq!(&bytes, &theirs.marshal().unwrap());
            let ours::Packet::FullIntraRequest(read) = read_by_us(&bytes) else {
                panic!("not FIR")
            };
            prop_assert_eq!(read.sender, Ssrc(sender));
            prop_assert_eq!(read.entries().collect::<Vec<_>>(), entries);
            prop_assert_eq!(read_by_them::<FullIntraRequest>(bytes), [theirs]);
        }

        #[test]
        fn nacks(
            (sender, media) in any::<(u32, u32)>(),
            // Their packing wants rising numbers.
            sequences in prop::collection::btree_set(0u16.., 1..40),
        ) {
            let rising: Vec<_> = sequences.iter().copied().collect();
            let nacks = nack_pairs_from_sequence_numbers(&rising);
            let bytes = TransportLayerNack { sender_ssrc: sender, media_ssrc: media, nacks }
                .marshal()
                .unwrap();
            let ours::Packet::Nack(read) = read_by_us(&bytes) else { panic!("not NACK") };
            prop_assert_eq!((read.sender, read.media), (Ssrc(sender), Ssrc(media)));
            prop_assert_eq!(read.sequences().collect::<BTreeSet<_>>(), sequences);

            let ours = written(|out| {
                let rising = rising.iter().copied();
                Some(ours::write_nack(out, Ssrc(sender), Ssrc(media), rising)?.len)
            });
            prop_assert_eq!(ours, bytes);
        }

        #[test]
        fn bitrates(sender: u32, bitrate in 0u32..1 << 18, ssrcs in prop::collection::vec(0u32.., 0..9)) {
            let theirs = ReceiverEstimatedMaximumBitrate {
                sender_ssrc: sender,
                bitrate: bitrate as f32,
                ssrcs: ssrcs.clone(),
            };
            let bytes = theirs.marshal().unwrap();
            let ours::Packet::MaxBitrate(read) = read_by_us(&bytes) else { panic!("not REMB") };
            prop_assert_eq!((read.sender, read.bitrate), (Ssrc(sender), u64::from(bitrate)));
            prop_assert_eq!(read.streams().map(|ssrc| ssrc.0).collect::<Vec<_>>(), ssrcs);
        }

        #[test]
        fn they_read_our_bitrates(
            sender: u32,
            // They read 0 as 2^23.
            bitrate in 1u64..1 << 50,
            ssrcs in prop::collection::vec(0u32.., 0..9),
        ) {
            let streams: Vec<_> = ssrcs.iter().copied().map(Ssrc).collect();
            let bytes = written(|out| {
                ours::write_max_bitrate(out, Ssrc(sender), bitrate, &streams)
            });
            let ours::Packet::MaxBitrate(ours) = read_by_us(&bytes) else { panic!("not REMB") };
            // Their number holds our 18 bits exactly.
            let theirs = ReceiverEstimatedMaximumBitrate {
                sender_ssrc: sender,
                bitrate: ours.bitrate as f32,
                ssrcs,
            };
            let read = read_by_them::<ReceiverEstimatedMaximumBitrate>(bytes.clone());
            prop_assert_eq!(read, [theirs]);
        }
    }
}

mod transport_cc {
    use super::*;
    use rtcp::transport_feedbacks::transport_layer_cc::{
        PacketStatusChunk, SymbolTypeTcc, TransportLayerCc,
    };

    /// What their reading of a feedback says: per packet, the delta in units of 250 µs.
    fn statuses(feedback: &TransportLayerCc) -> Vec<Option<i64>> {
        let symbols = feedback.packet_chunks.iter().flat_map(|chunk| match chunk {
            PacketStatusChunk::RunLengthChunk(run) => {
                vec![run.packet_status_symbol; run.run_length.into()]
            }
            PacketStatusChunk::StatusVectorChunk(vector) => vector.symbol_list.clone(),
        });
        let mut deltas = feedback.recv_deltas.iter();
        let statuses = symbols.take(feedback.packet_status_count.into()).map(|symbol| {
            let arrived = symbol != SymbolTypeTcc::PacketNotReceived;
            arrived.then(|| deltas.next().expect("a delta").delta / 250)
        });
        statuses.collect()
    }

    prop_compose! {
        /// Bursts of packets that are lost, near, or far from each other, up to 600 in all.
        fn arrivals()(
            start in 0i64..1 << 31,
            bursts in prop::collection::vec((0i64..600, 1usize..30, 0..3u8), 1..20),
        ) -> Vec<Option<i64>> {
            let mut time = start;
            let mut arrivals = vec![Some(start)];
            for (step, count, kind) in bursts {
                for index in 0..count {
                    // Time stands still over losses: a gap of 8 s would end the report early.
                    time += match kind {
                        1 if index % 3 == 2 => -step / 4,
                        2 => 0,
                        _ => step,
                    };
                    arrivals.push((kind != 2).then_some(time));
                }
            }
            arrivals
        }
    }

    proptest! {
        #[test]
        fn they_read_what_we_write(
            arrivals in arrivals(),
            base_sequence: u16,
            feedback_count: u8,
            (sender, media) in any::<(u32, u32)>(),
        ) {
            let (sender, media) = (Ssrc(sender), Ssrc(media));
            let fields = ours::FeedbackFields { sender, media, base_sequence, feedback_count };
            let mut covered = 0;
            let bytes = written(|out| {
                let written =
                    ours::write_transport_cc(out, &fields, arrivals.iter().copied())?;
                covered = usize::from(written.covered);
                Some(written.len)
            });
            prop_assert_eq!(covered, arrivals.len());

            let read = read_by_them::<TransportLayerCc>(bytes).remove(0);
            prop_assert_eq!((read.sender_ssrc, read.media_ssrc), (sender.0, media.0));
            prop_assert_eq!(read.base_sequence_number, base_sequence);
            prop_assert_eq!(read.fb_pkt_count, feedback_count);
            let mut time = i64::from(read.reference_time) * 256;
            let times = statuses(&read).into_iter().map(|delta| delta.map(|delta| {
                time += delta;
                time
            }));
            prop_assert_eq!(times.collect::<Vec<_>>(), arrivals);

            // And what they write of it, with their padding, we read.
            let theirs = read.marshal().unwrap();
            let ours::Packet::TransportCc(again) = read_by_us(&theirs) else {
                panic!("not feedback")
            };
            prop_assert_eq!((again.sender, again.media), (sender, media));
            prop_assert_eq!(again.base_sequence, base_sequence);
            prop_assert_eq!(again.feedback_count, feedback_count);
            prop_assert_eq!(again.reference_time as u32, read.reference_time);
            let found = again.statuses().map(|(_, delta)| delta.map(i64::from));
            prop_assert_eq!(found.collect::<Vec<_>>(), statuses(&read));
        }
    }
}

#[test]
fn they_walk_our_compounds() {
    let info = ours::SenderInfo { ssrc: Ssrc(7), ntp: 1 << 40, rtp: 5, packets: 6, octets: 7 };
    let bytes = written(|out| {
        let mut writer = ours::CompoundWriter::new(out);
        writer.push(|room| ours::write_sender_report(room, &info, &[]))?;
        writer.push(|room| ours::write_cname(room, Ssrc(7), b"alice"))?;
        writer.push(|room| ours::write_picture_loss(room, Ssrc(7), Ssrc(8)))?;
        writer.push(|room| ours::write_goodbye(room, &[Ssrc(7)]))?;
        Some(writer.len())
    });
    let packets = rtcp::packet::unmarshal(&mut bytes.clone()).unwrap();
    let destinations: Vec<_> = packets.iter().map(|packet| packet.destination_ssrc()).collect();
    assert_eq!(destinations, [[7], [7], [8], [7]]);
    assert_eq!(ours::Compound::parse(&bytes).unwrap().flatten().count(), 4);
}
