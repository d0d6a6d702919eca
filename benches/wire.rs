//! How long the parsers and writers of the media path take. Inputs are the seeds of the fuzz targets.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use shardcast::id::{PayloadType, Ssrc};
use shardcast::wire::extension::{AbsSendTime, Elements};
use shardcast::wire::rtcp::{Compound, FeedbackFields, Packet, write_transport_cc};
use shardcast::wire::rtp::{Fields, Header, write_header};
use shardcast::wire::{MAX_DATAGRAM, vp8, vp9};

fn rtp(criterion: &mut Criterion) {
    let packet = include_bytes!("../fuzz/corpus/rtp/vp8_key");
    criterion.bench_function("rtp/parse with 5 extensions", |bencher| {
        bencher.iter(|| {
            let packet = black_box(&packet[..]);
            let header = Header::parse(packet).expect("a seed");
            let bytes: usize = Elements::of(&header, packet).map(|(_, data)| data.len()).sum();
            (header, bytes)
        });
    });

    let fields = Fields {
        padding: false,
        marker: true,
        payload_type: PayloadType(96),
        sequence: 4711,
        timestamp: 90_000,
        ssrc: Ssrc(7),
    };
    let mut out = [0; MAX_DATAGRAM];
    criterion.bench_function("rtp/write header with 3 extensions", |bencher| {
        bencher.iter(|| {
            write_header(black_box(&mut out), black_box(&fields), |writer| {
                let time = AbsSendTime::from_ntp(black_box(1 << 40));
                writer.push(1, b"0").push(2, &time.to_bytes()).push(3, &[0x12, 0x34]);
            })
        });
    });
}

fn rtcp(criterion: &mut Criterion) {
    let compound = include_bytes!("../fuzz/corpus/rtcp/receiver_compound");
    criterion.bench_function("rtcp/walk RR, SDES, PLI", |bencher| {
        bencher.iter(|| {
            let packets = Compound::parse(black_box(&compound[..])).expect("a seed").flatten();
            packets.fold(0, |sum, packet| match packet {
                Packet::ReceiverReport(report) => {
                    sum + report.blocks.map(|block| block.jitter).sum::<u32>()
                }
                Packet::SourceDescription(description) => sum + description.chunks().count() as u32,
                Packet::PictureLoss(loss) => sum + loss.media.0,
                _ => sum,
            })
        });
    });

    // 100 ms of a 2.5 Mbit/s video: bursts of frames 33 ms apart, one packet in 50 is lost.
    let arrivals: Vec<Option<i64>> =
        (0..30).map(|n| (n != 17).then_some(n / 10 * 132 + n % 10)).collect();
    let fields = FeedbackFields {
        sender: Ssrc(1),
        media: Ssrc(2),
        base_sequence: 65_530,
        feedback_count: 9,
    };
    let mut out = [0; MAX_DATAGRAM];
    criterion.bench_function("rtcp/write feedback on 30 packets", |bencher| {
        bencher.iter(|| {
            let arrivals = black_box(&arrivals).iter().copied();
            write_transport_cc(black_box(&mut out), &fields, arrivals)
        });
    });

    let len = write_transport_cc(&mut out, &fields, arrivals.iter().copied()).expect("room").len;
    criterion.bench_function("rtcp/read feedback on 30 packets", |bencher| {
        bencher.iter(|| {
            let mut packets = Compound::parse(black_box(&out[..len])).expect("just written");
            let Some(Ok(Packet::TransportCc(feedback))) = packets.next() else { return 0 };
            feedback.statuses().filter(|(_, delta)| delta.is_some()).count()
        });
    });
}

fn descriptors(criterion: &mut Criterion) {
    let vp8 = include_bytes!("../fuzz/corpus/descriptors/vp8_key");
    criterion.bench_function("descriptor/vp8", |bencher| {
        bencher.iter(|| vp8::Descriptor::parse(black_box(&vp8[..])));
    });
    let vp9 = include_bytes!("../fuzz/corpus/descriptors/vp9_key_svc");
    criterion.bench_function("descriptor/vp9 with structure", |bencher| {
        bencher.iter(|| vp9::Descriptor::parse(black_box(&vp9[..])));
    });
}

criterion_group!(benches, rtp, rtcp, descriptors);
criterion_main!(benches);
