//! The data flow: buffers, events and queries on the pads.

use gst::prelude::*;
use gst::subclass::prelude::*;
use gstreamer as gst;
use gstreamer_video as gst_video;

use super::CAT;
use super::imp::XClipDetect;
use super::outlet::Taken;
use super::picture;
use super::run::{Run, Timeline};
use super::time::{self, WallClock};
use crate::detector::{DetectorError, Mode};
use crate::element::meta;
use crate::event::{Reason, Stamp};
use crate::image::ImageInfo;

/// A frame the detector may look at.
struct Look {
    stamp: Stamp,
    info: gst_video::VideoInfo,
    image_info: ImageInfo,
}

impl XClipDetect {
    pub(super) fn chain(
        &self,
        _pad: &gst::Pad,
        buffer: gst::Buffer,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        let _busy = self.stall.buffer();
        let Some(run) = self.begin() else { return Err(gst::FlowError::Flushing) };
        if run.has_failed() {
            return Err(gst::FlowError::Error);
        }
        if let Some(pts) = buffer.pts() {
            self.lines.advance(pts);
        }
        let look = self.look(&buffer, &run);
        if let Some(look) = look
            && run.is_enabled()
            && run.detector.wants(&look.stamp)
        {
            self.analyse(&run, &buffer, &look)?;
        }
        self.deliver(&run, buffer)
    }

    /// Counts the buffer and finds its place in time; `None`: it passes on unseen, and why is counted.
    fn look(&self, buffer: &gst::BufferRef, run: &Run) -> Option<Look> {
        let wall = run.live.then(|| WallClock { clock: self.obj().clock().zip(self.obj().base_time()) });
        let mut state = self.state();
        state.buffers += 1;
        let skipped = if buffer.flags().contains(gst::BufferFlags::CORRUPTED) {
            "corrupted"
        } else {
            match &state.timeline {
                Timeline::None => "no-segment",
                Timeline::Foreign => "segment-format",
                Timeline::Reverse => "reverse",
                Timeline::Forward(segment) => {
                    match (time::stamp(buffer, segment, wall.as_ref()), &state.picture) {
                        (Ok(stamp), Some((info, image_info))) => {
                            return Some(Look { stamp, info: info.clone(), image_info: *image_info });
                        }
                        (Ok(_), None) => "no-caps",
                        (Err(untimed), _) => untimed.reason(),
                    }
                }
            }
        };
        let count = state.skip(skipped);
        drop(state);
        match (skipped, count) {
            // A few lost timestamps are a camera's; none at all is a pipeline that cannot work.
            ("no-timestamp", 100) | ("segment-format", 1) => gst::element_warning!(
                self.obj(),
                gst::StreamError::Format,
                ("{count} buffers came without a time: nothing is detected in them; let the source set \
                     timestamps (do-timestamp=true) or put a parser or videorate before xclipdetect"),
                ["{skipped}; further ones are counted in stats"]
            ),
            (_, 1) => gst::warning!(CAT, imp = self, "a buffer passes unseen: {skipped}; see stats for more"),
            _ => (),
        }
        None
    }

    fn analyse(&self, run: &Run, buffer: &gst::BufferRef, look: &Look) -> Result<(), gst::FlowError> {
        let fault = match picture::with_image(buffer, &look.info, look.image_info, |image| {
            run.detector.push(look.stamp, image)
        }) {
            Ok(Ok(())) => {
                self.note_latency(run);
                return Ok(());
            }
            Ok(Err(DetectorError::Image(error))) => error.to_string(),
            Ok(Err(error)) => {
                run.fail(self.obj().upcast_ref(), &error.to_string());
                return Err(gst::FlowError::Error);
            }
            Err(error) => error.to_string(),
        };
        if self.state().skip("unreadable") == 1 {
            gst::element_warning!(
                self.obj(),
                gst::StreamError::Format,
                ("a frame could not be read: {fault}"),
                ["it passes on; further ones are counted in stats"]
            );
        }
        Ok(())
    }

    /// Pushes what became due, then the buffer with its marks.
    fn deliver(&self, run: &Run, mut buffer: gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        let Taken { events, marks } = run.outlet.take(true);
        for structure in events {
            self.srcpad.push_event(gst::event::CustomDownstream::new(structure));
        }
        if !marks.windows.is_empty() || !marks.events.is_empty() {
            // Copies the header where somebody else holds the buffer too; the memory is shared.
            let buffer = buffer.make_mut();
            meta::attach(buffer, &marks);
            #[cfg(feature = "v1_24")]
            crate::element::analytics::attach(buffer, &marks);
        }
        if run.mode == Mode::Sync {
            self.lines.wait_for_room();
        }
        self.srcpad.push(buffer)
    }

    /// Pushes what became due before a serialized event.
    fn deliver_events(&self, run: Option<&Run>) {
        if let Some(run) = run {
            for structure in run.outlet.take(false).events {
                self.srcpad.push_event(gst::event::CustomDownstream::new(structure));
            }
        }
    }

    pub(super) fn sink_event(&self, pad: &gst::Pad, event: gst::Event) -> bool {
        gst::log!(CAT, obj = pad, "{event:?}");
        let run = self.state().run.clone();
        let run = run.as_ref();
        match event.view() {
            gst::EventView::FlushStart(_) => {
                // What follows ends events: that is told after the flush, or queues downstream drop it.
                self.lines.flush_start();
                if let Some(run) = run {
                    run.outlet.flush_start();
                }
                if let Some(events) = self.events_pad() {
                    events.push_event(event.clone());
                }
                // Before a waiting buffer wakes: it has nowhere to go any more.
                let taken = self.srcpad.push_event(event);
                if let Some(run) = run {
                    run.detector.interrupt(true);
                    run.detector.flush(Reason::Flush);
                }
                return taken;
            }
            gst::EventView::FlushStop(_) => {
                // The stream lock is held: whatever frame was on its way has arrived, and goes too.
                if let Some(run) = run {
                    run.detector.flush(Reason::Flush);
                    run.detector.interrupt(false);
                    run.outlet.flush_stop();
                }
                self.state().timeline = Timeline::None;
                // Nothing new where a FLUSH_START came; else the task would be waited for and never wake.
                self.lines.flush_start();
                if let Some(events) = self.events_pad() {
                    // The task has met the flush or does so now; its lock says that it has gone.
                    let _ = events.pause_task();
                    let _gone = events.stream_lock();
                    events.push_event(event.clone());
                    if events.is_active() {
                        self.lines.flush_stop();
                        if let Err(error) = self.start_events_task(&events) {
                            error.log_with_imp(self);
                        }
                    }
                }
                return self.srcpad.push_event(event);
            }
            gst::EventView::StreamStart(start) => {
                let id = start.stream_id().to_string();
                let before = std::mem::replace(&mut self.state().stream, id.clone());
                if let Some(run) = run {
                    if !before.is_empty() {
                        gst::info!(CAT, imp = self, "stream {before} → {id}: a new window");
                        // The same id is the same camera, connected anew.
                        run.detector.restart((before != id).then_some(Reason::Discontinuity));
                    }
                    self.deliver_events(Some(run));
                    run.detector.set_source(self.source());
                }
                self.lines.stream_start();
            }
            gst::EventView::Caps(caps) if !self.set_caps(caps.caps()) => return false,
            gst::EventView::Segment(segment) => {
                self.deliver_events(run);
                self.set_segment(segment.segment(), run);
            }
            gst::EventView::Gap(gap) => {
                self.deliver_events(run);
                let (start, duration) = gap.get();
                self.lines.advance(duration.map_or(start, |duration| start + duration));
            }
            gst::EventView::Eos(_) => {
                if let Some(run) = run {
                    // Waits for the windows in flight; a flush or a state change ends the wait.
                    run.detector.finish(Reason::Eos);
                }
                self.deliver_events(run);
                self.lines.eos();
            }
            _ => (),
        }
        gst::Pad::event_default(pad, Some(&*self.obj()), event)
    }

    /// A new picture size or format keeps the window: what the model sees has always the same size.
    fn set_caps(&self, caps: &gst::CapsRef) -> bool {
        let info = gst_video::VideoInfo::from_caps(caps).ok();
        let picture = info.and_then(|info| Some((info.clone(), picture::image_info(&info)?)));
        let readable = picture.is_some();
        self.state().picture = picture;
        if !readable {
            gst::element_error!(
                self.obj(),
                gst::StreamError::Format,
                ("caps {caps} are not video this element reads; put videoconvert before it"),
                ["see the sink pad template in gst-inspect-1.0 xclipdetect"]
            );
        }
        readable
    }

    fn set_segment(&self, segment: &gst::Segment, run: Option<&Run>) {
        let timeline = match segment.downcast_ref::<gst::ClockTime>() {
            None => Timeline::Foreign,
            Some(segment) if segment.rate() < 0.0 => Timeline::Reverse,
            Some(segment) => Timeline::Forward(segment.clone()),
        };
        if let Some(segment) = segment.downcast_ref::<gst::ClockTime>() {
            self.lines.segment(segment.clone());
        }
        let before = std::mem::replace(&mut self.state().timeline, timeline.clone());
        let broke = match (&before, &timeline) {
            (Timeline::None, _) => false,
            (Timeline::Forward(before), Timeline::Forward(now)) => !continues(before, now),
            _ => true,
        };
        match &timeline {
            Timeline::Foreign => gst::warning!(
                CAT,
                imp = self,
                "segment in {:?}: without times nothing is detected",
                segment.format()
            ),
            Timeline::Reverse => {
                gst::info!(CAT, imp = self, "rate {}: nothing is detected in reverse", segment.rate())
            }
            _ => (),
        }
        if broke && let Some(run) = run {
            run.detector.restart(None);
        }
    }

    pub(super) fn sink_query(&self, pad: &gst::Pad, query: &mut gst::QueryRef) -> bool {
        let forwarded = match query.type_() {
            gst::QueryType::Allocation => self.srcpad.peer_query(query),
            _ => gst::Pad::query_default(pad, Some(&*self.obj()), query),
        };
        match query.view_mut() {
            gst::QueryViewMut::Allocation(query) if forwarded => {
                // The one buffer this element may hold is on top of what downstream needs.
                let pools: Vec<_> = query.allocation_pools().collect();
                for (index, (pool, size, min, max)) in pools.into_iter().enumerate() {
                    let max = if max == 0 { 0 } else { max.max(min + 1) };
                    query.set_nth_allocation_pool(index as u32, pool.as_ref(), size, min + 1, max);
                }
            }
            gst::QueryViewMut::AcceptCaps(query) if !query.result() => {
                if let Some(features) = foreign_memory(query.caps()) {
                    gst::element_warning!(
                        self.obj(),
                        gst::StreamError::Format,
                        ("video in {features} cannot be read here: put a download element (cudadownload, vapostproc, gldownload, …) or videoconvert before xclipdetect"),
                        ["{}", query.caps()]
                    );
                }
            }
            _ => (),
        }
        forwarded
    }

    pub(super) fn src_event(&self, pad: &gst::Pad, event: gst::Event) -> bool {
        if let gst::EventView::Seek(_) = event.view()
            && self.state().last_seek.replace(event.seqnum()) == Some(event.seqnum())
        {
            // The same seek through the other pad: a pipeline sends it from every sink.
            return true;
        }
        let seek = matches!(event.view(), gst::EventView::Seek(_));
        let taken = gst::Pad::event_default(pad, Some(&*self.obj()), event);
        if seek && !taken {
            // Refused: the same one may be tried again.
            self.state().last_seek = None;
        }
        taken
    }

    pub(super) fn events_pad_event(&self, pad: &gst::Pad, event: gst::Event) -> bool {
        match event.type_() {
            // What a sink of events finds late or wants renegotiated is no concern of the video.
            gst::EventType::Qos | gst::EventType::Latency => true,
            gst::EventType::Reconfigure => {
                // Comes with every new link: what ended the old one is over.
                self.lines.revive();
                true
            }
            _ => self.src_event(pad, event),
        }
    }

    pub(super) fn src_query(&self, pad: &gst::Pad, query: &mut gst::QueryRef) -> bool {
        let answered = gst::Pad::query_default(pad, Some(&*self.obj()), query);
        if let gst::QueryViewMut::Latency(query) = query.view_mut()
            && answered
        {
            let (live, min, max) = query.result();
            let own = self.state().latency;
            if live && own > gst::ClockTime::ZERO {
                query.set(live, min + own, max.map(|max| max + own));
            }
        }
        answered
    }
}

/// Whether `now` goes on where `before` was: the same rate, and every timestamp means the same time.
fn continues(
    before: &gst::FormattedSegment<gst::ClockTime>,
    now: &gst::FormattedSegment<gst::ClockTime>,
) -> bool {
    let probe = now.start().unwrap_or_default();
    before.rate() == now.rate()
        && before.to_stream_time(probe) == now.to_stream_time(probe)
        && before.to_running_time(probe) == now.to_running_time(probe)
}

/// The memory features of caps that are not plain system memory.
fn foreign_memory(caps: &gst::CapsRef) -> Option<String> {
    let features = caps.features(0)?;
    let foreign =
        features.iter().find(|feature| feature.starts_with("memory:") && *feature != "memory:SystemMemory");
    foreign.map(|feature| feature.to_string())
}
