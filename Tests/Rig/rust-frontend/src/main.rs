//! rust-frontend SOCKET PAIRS FRAMES SECONDS > CAPTURE
//!
//! rust-vmm's vhost-user front-end (crate `vhost`) without a virtual machine. It sends the messages that Cloud Hypervisor
//! sends, in its order: start with MQ, CONFIGURE_MEM_SLOTS, REPLY_ACK, INFLIGHT_SHMFD and LOG_SHMFD, plug memory, pause and
//! resume, log dirty pages, reset and start again. Every request asks for an answer, and the crate checks each.
//!
//! Prints on standard error READY when its rings run, HALF when it has half of its frames and waits for the others, and DONE
//! with the rings' places at the end; writes the FRAMES frames that it receives on standard output, as a capture. The exit
//! status is 0 if everything was as it must be.
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::sync::atomic::{fence, Ordering};
use std::time::{Duration, Instant};

use vhost::vhost_user::message::{
    VhostUserHeaderFlag, VhostUserInflight, VhostUserProtocolFeatures, VhostUserVirtioFeatures,
};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserDirtyLogRegion, VhostUserMemoryRegionInfo, VringConfigData};
use vmm_sys_util::eventfd::EventFd;

const ENTRIES: usize = 256;
const HEADER: usize = 12;
const STRIDE: usize = 2048;
const RING_BYTES: usize = 0x4000;
/// virtio 1.3, 5.1.3 and 6; vhost-user, "Feature negotiation".
const MRG_RXBUF: u64 = 1 << 15;
const CTRL_VQ: u64 = 1 << 17;
const MQ: u64 = 1 << 22;
const LOG_ALL: u64 = 1 << 26;
const EVENT_IDX: u64 = 1 << 29;
const VERSION_1: u64 = 1 << 32;

type Failure = Box<dyn std::error::Error>;

/// Guest memory: a file, mapped.
struct Memory {
    file: File,
    base: *mut u8,
    bytes: usize,
    guest: u64,
}

impl Memory {
    fn new(name: &std::ffi::CStr, guest: u64, bytes: usize) -> Result<Memory, Failure> {
        // SAFETY: the name is a string that ends with a zero; the descriptor is ours alone.
        let file = unsafe {
            let fd = libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC);
            if fd < 0 {
                return Err(std::io::Error::last_os_error().into());
            }
            File::from_raw_fd(fd)
        };
        file.set_len(bytes as u64)?;
        // SAFETY: a new mapping, of a file of that length.
        let base = unsafe {
            libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        if base == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error().into());
        }
        Ok(Memory { file, base: base as *mut u8, bytes, guest })
    }

    fn region(&self) -> VhostUserMemoryRegionInfo {
        VhostUserMemoryRegionInfo {
            guest_phys_addr: self.guest,
            memory_size: self.bytes as u64,
            userspace_addr: self.base as u64,
            mmap_offset: 0,
            mmap_handle: self.file.as_raw_fd(),
        }
    }

    fn at<T>(&self, offset: usize) -> *mut T {
        assert!(offset + std::mem::size_of::<T>() <= self.bytes);
        // SAFETY: it lies in the mapping.
        unsafe { self.base.add(offset) as *mut T }
    }
    fn write<T>(&self, offset: usize, value: T) {
        // SAFETY: it lies in the mapping, and is aligned by its layout.
        unsafe { self.at::<T>(offset).write_volatile(value) }
    }
    fn read<T>(&self, offset: usize) -> T {
        // SAFETY: as above.
        unsafe { self.at::<T>(offset).read_volatile() }
    }
}

/// A split ring: descriptors, then the available ring, then the used ring. virtio 1.3, 2.7.
struct Ring {
    index: usize,
    place: usize,
    buffers: usize,
    available: u16,
    used: u16,
    kick: EventFd,
    call: EventFd,
}

impl Ring {
    fn new(index: usize) -> Result<Ring, Failure> {
        Ok(Ring {
            index,
            place: index * RING_BYTES,
            buffers: 0x100000 + index * ENTRIES * STRIDE,
            available: 0,
            used: 0,
            kick: EventFd::new(libc::EFD_NONBLOCK)?,
            call: EventFd::new(libc::EFD_NONBLOCK)?,
        })
    }

    fn receives(&self) -> bool {
        self.index % 2 == 0
    }
    fn available_at(&self) -> usize {
        self.place + 0x1000
    }
    fn used_at(&self) -> usize {
        self.place + 0x2000
    }
    fn buffer_at(&self, id: usize) -> usize {
        self.buffers + id * STRIDE
    }

    fn config(&self, memory: &Memory) -> VringConfigData {
        let base = memory.base as u64;
        VringConfigData {
            queue_max_size: ENTRIES as u16,
            queue_size: ENTRIES as u16,
            flags: 0,
            desc_table_addr: base + self.place as u64,
            used_ring_addr: base + self.used_at() as u64,
            avail_ring_addr: base + self.available_at() as u64,
            log_addr: None,
        }
    }

    /// Makes a buffer available.
    fn post(&mut self, memory: &Memory, id: usize, bytes: usize) {
        let descriptor = self.place + 16 * id;
        memory.write(descriptor, memory.guest + self.buffer_at(id) as u64);
        memory.write(descriptor + 8, bytes as u32);
        memory.write(descriptor + 12, if self.receives() { 2u16 } else { 0u16 });
        memory.write(self.available_at() + 4 + 2 * (self.available as usize % ENTRIES), id as u16);
        self.available = self.available.wrapping_add(1);
        fence(Ordering::SeqCst);
        memory.write(self.available_at() + 2, self.available);
        fence(Ordering::SeqCst);
    }

    /// The next buffer that the back-end has used, and how many bytes it wrote.
    fn take(&mut self, memory: &Memory) -> Option<(usize, usize)> {
        if memory.read::<u16>(self.used_at() + 2) == self.used {
            return None;
        }
        fence(Ordering::SeqCst);
        let entry = self.used_at() + 4 + 8 * (self.used as usize % ENTRIES);
        self.used = self.used.wrapping_add(1);
        let (id, bytes) = (memory.read::<u32>(entry) as usize, memory.read::<u32>(entry + 4) as usize);
        assert!(id < ENTRIES && bytes <= STRIDE, "used entry {id} of {bytes} bytes");
        // Ask to be notified of the next one: used_event.
        memory.write(self.available_at() + 4 + 2 * ENTRIES, self.used);
        fence(Ordering::SeqCst);
        Some((id, bytes))
    }
}

/// What Cloud Hypervisor does when a driver is ready.
fn activate(
    frontend: &mut Frontend, features: u64, memory: &Memory, rings: &[Ring], inflight: &mut Option<(VhostUserInflight, File)>,
) -> Result<(), Failure> {
    frontend.set_features(features)?;
    frontend.set_mem_table(&[memory.region()])?;
    for ring in rings {
        frontend.set_vring_num(ring.index, ENTRIES as u16)?;
    }
    if inflight.is_none() {
        let wanted = VhostUserInflight {
            mmap_size: 0,
            mmap_offset: 0,
            num_queues: rings.len() as u16,
            queue_size: ENTRIES as u16,
        };
        *inflight = Some(frontend.get_inflight_fd(&wanted)?);
    }
    let (description, file) = inflight.as_ref().unwrap();
    frontend.set_inflight_fd(description, file.as_raw_fd())?;
    for ring in rings {
        frontend.set_vring_addr(ring.index, &ring.config(memory))?;
        frontend.set_vring_base(ring.index, ring.used)?;
        frontend.set_vring_call(ring.index, &ring.call)?;
        frontend.set_vring_kick(ring.index, &ring.kick)?;
    }
    for ring in rings {
        frontend.set_vring_enable(ring.index, true)?;
    }
    Ok(())
}

/// Disables and stops every ring, as Cloud Hypervisor does at a reset.
fn reset(frontend: &mut Frontend, rings: &[Ring]) -> Result<Vec<u32>, Failure> {
    let mut places = Vec::new();
    for ring in rings {
        frontend.set_vring_enable(ring.index, false)?;
        places.push(frontend.get_vring_base(ring.index)?);
    }
    Ok(places)
}

/// Receives up to `frames` frames before `end`, and gives each buffer back.
fn receive(
    memory: &Memory, rings: &mut [Ring], frames: usize, end: Instant, out: &mut impl Write,
) -> Result<usize, Failure> {
    let mut count = 0;
    while count < frames && Instant::now() < end {
        let mut moved = false;
        for ring in rings.iter_mut().filter(|ring| ring.receives()) {
            while let Some((id, bytes)) = ring.take(memory) {
                assert!(bytes > HEADER, "{bytes} bytes");
                let mut frame = vec![0u8; bytes - HEADER];
                let start = memory.at::<u8>(ring.buffer_at(id) + HEADER);
                // SAFETY: the buffer is longer than what was written, and used: nothing writes to it now.
                unsafe { std::ptr::copy_nonoverlapping(start, frame.as_mut_ptr(), frame.len()) };
                let length = frame.len() as u32;
                for word in [0, 0, length, length] {
                    out.write_all(&word.to_le_bytes())?;
                }
                out.write_all(&frame)?;
                ring.post(memory, id, STRIDE);
                ring.kick.write(1)?;
                count += 1;
                moved = true;
            }
        }
        if !moved {
            wait(rings)?;
        }
    }
    out.flush()?;
    Ok(count)
}

/// Sleeps until a ring is used, or for a moment.
fn wait(rings: &[Ring]) -> Result<(), Failure> {
    let mut polled: Vec<libc::pollfd> =
        rings.iter().map(|ring| libc::pollfd { fd: ring.call.as_raw_fd(), events: libc::POLLIN, revents: 0 }).collect();
    // SAFETY: an array and its length.
    unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, 100) };
    for ring in rings {
        let _ = ring.call.read();
    }
    Ok(())
}

/// Sends a frame on the first transmit ring, and waits until the back-end has used its buffer.
fn send(memory: &Memory, ring: &mut Ring, end: Instant) -> Result<(), Failure> {
    let place = ring.buffer_at(0);
    for n in 0..HEADER + 60 {
        // A header of zeros, broadcast, local experimental EtherType 1.
        let byte = match n {
            HEADER..=17 => 0xff,
            18 => 2,
            24 => 0x88,
            25 => 0xb5,
            _ => 0u8,
        };
        memory.write(place + n, byte);
    }
    ring.post(memory, 0, HEADER + 60);
    ring.kick.write(1)?;
    while ring.take(memory).is_none() {
        if Instant::now() > end {
            return Err("the frame that was sent is not used".into());
        }
        wait(std::slice::from_ref(ring))?;
    }
    Ok(())
}

fn run(socket: &str, pairs: usize, frames: usize, seconds: u64) -> Result<String, Failure> {
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut frontend = Frontend::connect(socket, 2 * pairs as u64)?;
    frontend.set_owner()?;
    let offered = frontend.get_features()?;
    let wanted = MRG_RXBUF | CTRL_VQ | EVENT_IDX | VERSION_1 | LOG_ALL | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
    let features = offered & if pairs > 1 { wanted | MQ } else { wanted };
    let needed = VhostUserProtocolFeatures::MQ
        | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
        | VhostUserProtocolFeatures::REPLY_ACK
        | VhostUserProtocolFeatures::INFLIGHT_SHMFD
        | VhostUserProtocolFeatures::LOG_SHMFD;
    let protocol = frontend.get_protocol_features()? & needed;
    if protocol != needed {
        return Err(format!("protocol features {protocol:?}").into());
    }
    frontend.set_protocol_features(protocol)?;
    frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
    let queues = frontend.get_queue_num()?;
    eprintln!("QUEUES {queues}");
    if 2 * pairs as u64 > queues {
        return Err(format!("BadQueueNum: {} queues wanted, and the back-end has {queues}", 2 * pairs).into());
    }
    if frontend.get_max_mem_slots()? < 8 {
        return Err("fewer than 8 memory slots".into());
    }

    let memory = Memory::new(c"guest", 0, 0x100000 + 2 * pairs * ENTRIES * STRIDE)?;
    let mut rings = (0..2 * pairs).map(Ring::new).collect::<Result<Vec<_>, _>>()?;
    for ring in rings.iter_mut().filter(|ring| ring.receives()) {
        for id in 0..ENTRIES {
            ring.post(&memory, id, STRIDE);
        }
    }
    let mut inflight = None;
    // Logging is for a migration: it begins later.
    activate(&mut frontend, features & !LOG_ALL, &memory, &rings, &mut inflight)?;
    eprintln!("READY");

    let mut out = BufWriter::new(std::io::stdout());
    // A capture's head: microseconds, version 2.4, Ethernet.
    for word in [0xa1b2_c3d4u32, 4 << 16 | 2, 0, 0, 65535, 1] {
        out.write_all(&word.to_le_bytes())?;
    }
    let half = receive(&memory, &mut rings, frames / 2, end, &mut out)?;

    // Memory that is plugged in, and out.
    let more = Memory::new(c"more", 0x1_0000_0000, 1 << 21)?;
    frontend.add_mem_region(&more.region())?;
    send(&memory, &mut rings[1], end)?;
    frontend.remove_mem_region(&more.region())?;

    // Paused and resumed.
    for enable in [false, true] {
        for ring in &rings {
            frontend.set_vring_enable(ring.index, enable)?;
        }
    }

    // A migration that is given up: a log of dirty pages, one bit for 4 KiB.
    let log = Memory::new(c"log", 0, memory.bytes.div_ceil(4096 * 8))?;
    let region =
        VhostUserDirtyLogRegion { mmap_size: log.bytes as u64, mmap_offset: 0, mmap_handle: log.file.as_raw_fd() };
    frontend.set_log_base(0, Some(region))?;
    frontend.set_features(features)?;
    eprintln!("HALF");
    let rest = receive(&memory, &mut rings, frames - half, end, &mut out)?;
    let dirty: u32 = (0..log.bytes).map(|n| log.read::<u8>(n).count_ones()).sum();
    frontend.set_features(features & !LOG_ALL)?;
    if half + rest < frames {
        return Err(format!("{half} and {rest} frames in {seconds} s, not {frames}").into());
    }
    if dirty == 0 {
        return Err("frames were received, and no page is marked in the log".into());
    }

    // The driver is reset: where the rings stopped is behind the last buffer that was used. Then another driver.
    let places = reset(&mut frontend, &rings)?;
    for (ring, place) in rings.iter().zip(&places) {
        if *place != u32::from(ring.used) {
            return Err(format!("ring {} stopped at {place}, not at {}", ring.index, ring.used).into());
        }
    }
    activate(&mut frontend, features & !LOG_ALL, &memory, &rings, &mut inflight)?;
    send(&memory, &mut rings[1], end)?;

    // A ring beyond those that there are is refused, and the connection goes on. The crate knows the limit: another one of its
    // front-ends on the same socket does not.
    let stream = std::os::unix::net::UnixStream::from(std::os::fd::OwnedFd::from(duplicate(&frontend)?));
    let blind = Frontend::from_stream(stream, queues + 2);
    blind.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
    blind.get_features()?;
    let mut blind = blind;
    blind.get_protocol_features()?;
    blind.set_protocol_features(protocol)?;
    if blind.set_vring_num(queues as usize, ENTRIES as u16).is_ok() {
        return Err(format!("ring {queues} of {queues} was not refused").into());
    }
    frontend.get_features()?;

    reset(&mut frontend, &rings)?;
    Ok(format!("received {} places {places:?} dirty {dirty}", half + rest))
}

fn duplicate(frontend: &Frontend) -> Result<File, Failure> {
    // SAFETY: the descriptor is open while the front-end lives; the copy is ours alone.
    let fd = unsafe { libc::fcntl(frontend.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 0) };
    if fd < 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    // SAFETY: as above.
    Ok(unsafe { File::from_raw_fd(fd) })
}

fn main() {
    let words: Vec<String> = std::env::args().collect();
    if words.len() != 5 {
        eprintln!("usage: rust-frontend SOCKET PAIRS FRAMES SECONDS > CAPTURE");
        std::process::exit(64);
    }
    let number = |n: usize| words[n].parse::<usize>().expect("a number");
    match run(&words[1], number(2), number(3), number(4) as u64) {
        Ok(line) => eprintln!("DONE {line}"),
        Err(error) => {
            eprintln!("rust-frontend: {error}");
            std::process::exit(3);
        }
    }
}
