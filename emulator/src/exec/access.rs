//! Loads and stores: addresses to a state space, checks, then the bytes.

use super::context::{Context, LOCAL_WINDOW, PARAMETER_WINDOW, SHARED_WINDOW, WINDOW_BYTES, lanes};
use super::global::{self, Mode, Request};
use super::lanes::{File, LANES, Lane, Operation};
use super::shared;
use crate::program::{Access, AccessSpace, Instruction, NONE};
use crate::report::Kind;

/// `ld`: a is the address, `word` the access.
pub struct Load;
/// `st`.
pub struct Store;

impl Operation for Load {
    #[inline(always)]
    unsafe fn run(context: &mut Context<'_>, i: &Instruction, mask: u32) {
        let program = context.program;
        let access = &program.accesses[i.word as usize];
        let addresses = context.addresses(i.a, access.narrow, access.offset);
        by_space(context, access, &addresses, mask, |context, space, addresses, mask| {
            load(context, access, space, addresses, mask);
        });
    }
}

impl Operation for Store {
    #[inline(always)]
    unsafe fn run(context: &mut Context<'_>, i: &Instruction, mask: u32) {
        let program = context.program;
        let access = &program.accesses[i.word as usize];
        let addresses = context.addresses(i.a, access.narrow, access.offset);
        by_space(context, access, &addresses, mask, |context, space, addresses, mask| {
            store(context, access, space, addresses, mask);
        });
    }
}

/// Splits generic addresses by window; others go straight on.
#[inline(always)]
pub fn by_space(
    context: &mut Context<'_>,
    access: &Access,
    addresses: &[u64; LANES],
    mask: u32,
    mut run: impl FnMut(&mut Context<'_>, AccessSpace, &[u64; LANES], u32),
) {
    if access.space != AccessSpace::Generic {
        run(context, access.space, addresses, mask);
        return;
    }
    let (mut shared, mut local, mut parameter) = (0u32, 0u32, 0u32);
    for (lane, address) in addresses.iter().enumerate() {
        shared |= u32::from(address.wrapping_sub(SHARED_WINDOW) < WINDOW_BYTES) << lane;
        local |= u32::from(address.wrapping_sub(LOCAL_WINDOW) < WINDOW_BYTES) << lane;
        parameter |= u32::from(address.wrapping_sub(PARAMETER_WINDOW) < WINDOW_BYTES) << lane;
    }
    let parts = [
        (AccessSpace::Global, mask & !shared & !local & !parameter, 0),
        (AccessSpace::Shared, mask & shared, SHARED_WINDOW),
        (AccessSpace::Local, mask & local, LOCAL_WINDOW),
        (AccessSpace::Parameter, mask & parameter, PARAMETER_WINDOW),
    ];
    for (space, part, base) in parts {
        if part != 0 && context.fault.is_none() {
            run(context, space, &addresses.map(|address| address.wrapping_sub(base)), part);
        }
    }
}

fn load(context: &mut Context<'_>, access: &Access, space: AccessSpace, addresses: &[u64; LANES], mask: u32) {
    let bytes = access.bytes();
    if !global::aligned(context, addresses, mask, bytes) {
        return;
    }
    let request = Request { addresses, mask, bytes, mode: Mode::Read, strong: access.strong, data: None };
    match space {
        AccessSpace::Global | AccessSpace::Generic => {
            if let Some(view) = global::check(context, &request) {
                let origin = view.data.wrapping_sub(view.base as usize);
                // SAFETY: every lane's bytes lie in the view.
                unsafe { fetch(context.file, access, origin, addresses, mask) };
                if access.strong {
                    global::acquire(context, addresses, mask);
                }
            }
        }
        AccessSpace::Shared => {
            if shared::check(context, &request, false) {
                let origin = context.block.shared().as_ptr().cast_mut();
                // SAFETY: every lane's bytes lie in shared memory.
                unsafe { fetch(context.file, access, origin, addresses, mask) };
            }
        }
        AccessSpace::Local => {
            if let Some(places) = local(context, &request) {
                let origin = context.block.local.as_mut_ptr();
                // SAFETY: `local` has checked the places.
                unsafe { fetch(context.file, access, origin, &places, mask) };
            }
        }
        AccessSpace::Parameter => {
            let parameters = context.launch.parameters;
            let last = (parameters.len() as u64).wrapping_sub(bytes);
            if let Some(lane) =
                lanes(mask).find(|&lane| bytes > parameters.len() as u64 || addresses[lane] > last)
            {
                let detail =
                    format!("{bytes} bytes at {} of {} parameter bytes", addresses[lane], parameters.len());
                context.fail(Kind::OutOfBounds, lane as u32, detail);
                return;
            }
            // SAFETY: every lane's bytes lie in the parameters; nothing is written through the pointer.
            unsafe { fetch(context.file, access, parameters.as_ptr().cast_mut(), addresses, mask) };
        }
        AccessSpace::Constant => constant(context, access, addresses, mask),
    }
}

/// Constant variables lie in device memory; only their bounds are of interest.
fn constant(context: &mut Context<'_>, access: &Access, addresses: &[u64; LANES], mask: u32) {
    let bytes = access.bytes();
    let inside = |address: u64| {
        let mut variables = context.launch.constants.iter();
        variables.any(|(start, size)| address >= *start && address.wrapping_add(bytes) <= start + size)
    };
    if let Some(lane) = lanes(mask).find(|&lane| !inside(addresses[lane])) {
        let place = context.launch.memory.describe(addresses[lane]);
        let detail = format!("{bytes} bytes of constant memory at {:#x}: {place}", addresses[lane]);
        context.fail(Kind::OutOfBounds, lane as u32, detail);
        return;
    }
    let view = context.launch.views[0];
    // SAFETY: every lane's bytes lie in a constant variable, which lies in the view.
    unsafe { fetch(context.file, access, view.data.wrapping_sub(view.base as usize), addresses, mask) };
}

/// Checks local memory and yields each lane's place in the block's local storage.
fn local(context: &mut Context<'_>, request: &Request<'_>) -> Option<[u64; LANES]> {
    let size = u64::from(context.program.local_bytes);
    let mut places = [0; LANES];
    for lane in lanes(request.mask) {
        let address = request.addresses[lane];
        if request.bytes > size || address > size - request.bytes {
            let detail = format!("{} bytes at {address} of {size} bytes of local memory", request.bytes);
            context.fail(Kind::OutOfBounds, lane as u32, detail);
            return None;
        }
        let place = (context.warp as u64 * 32 + lane as u64) * size + address;
        places[lane] = place;
        if context.launch.checks {
            let written = &mut context.block.local_written[place as usize..(place + request.bytes) as usize];
            if request.mode == Mode::Read {
                if !written.iter().all(|byte| *byte) {
                    let detail = format!("reads {} bytes at {address} of local memory", request.bytes);
                    context.fail(Kind::UninitialisedLocal, lane as u32, detail);
                    return None;
                }
            } else {
                written.fill(true);
            }
        }
    }
    Some(places)
}

fn store(
    context: &mut Context<'_>,
    access: &Access,
    space: AccessSpace,
    addresses: &[u64; LANES],
    mask: u32,
) {
    let bytes = access.bytes();
    if !global::aligned(context, addresses, mask, bytes) {
        return;
    }
    let file = context.file;
    let data = |lane: usize, byte: usize| {
        let (element, byte) = (byte / access.element as usize, byte % access.element as usize);
        // SAFETY: the decoder gave the slots.
        unsafe { register(file, access, element, lane).to_le_bytes()[byte] }
    };
    let request =
        Request { addresses, mask, bytes, mode: Mode::Write, strong: access.strong, data: Some(&data) };
    match space {
        AccessSpace::Global | AccessSpace::Generic => {
            if !writable(context, addresses, mask, bytes) {
                return;
            }
            if access.release {
                global::fence(context);
            }
            if access.strong {
                global::release(context, addresses, mask);
            }
            if let Some(view) = global::check(context, &request) {
                let origin = view.data.wrapping_sub(view.base as usize);
                // SAFETY: every lane's bytes lie in the view.
                unsafe { put(file, access, origin, addresses, mask) };
            }
        }
        AccessSpace::Shared => {
            if shared::check(context, &request, false) {
                let origin = context.block.shared_mut().as_mut_ptr();
                // SAFETY: every lane's bytes lie in shared memory.
                unsafe { put(file, access, origin, addresses, mask) };
            }
        }
        AccessSpace::Local => {
            if let Some(places) = local(context, &request) {
                let origin = context.block.local.as_mut_ptr();
                // SAFETY: `local` has checked the places.
                unsafe { put(file, access, origin, &places, mask) };
            }
        }
        AccessSpace::Parameter | AccessSpace::Constant => {
            let lane = mask.trailing_zeros();
            context.fail(Kind::ReadOnly, lane, "a store to parameter or constant memory".to_owned());
        }
    }
}

/// No lane writes into a `.const` variable. False after a fault.
pub fn writable(context: &mut Context<'_>, addresses: &[u64; LANES], mask: u32, bytes: u64) -> bool {
    for &(start, size) in context.launch.constants {
        let hit = lanes(mask)
            .find(|&lane| addresses[lane] < start + size && addresses[lane].wrapping_add(bytes) > start);
        if let Some(lane) = hit {
            let place = context.launch.memory.describe(addresses[lane]);
            let detail = format!("writes constant memory at {:#x}: {place}", addresses[lane]);
            context.fail(Kind::ReadOnly, lane as u32, detail);
            return false;
        }
    }
    true
}

/// The bits of an element's register.
///
/// # Safety
/// The access's slots lie in the file.
#[inline(always)]
unsafe fn register(file: File, access: &Access, element: usize, lane: usize) -> u64 {
    // SAFETY: the caller's promise.
    unsafe {
        match access.slots[element] {
            NONE => 0,
            slot if access.wide => u64::get(file, slot, lane),
            slot => u64::from(u32::get(file, slot, lane)),
        }
    }
}

/// Memory to registers.
///
/// # Safety
/// For each lane of the mask `origin + offset` points at the access's bytes; the slots lie in the file.
#[inline(always)]
unsafe fn fetch(file: File, access: &Access, origin: *mut u8, offsets: &[u64; LANES], mask: u32) {
    for (element, &slot) in access.slots.iter().enumerate() {
        if slot == NONE {
            continue;
        }
        let step = element * access.element as usize;
        let at = |lane: usize| origin.wrapping_add(offsets[lane] as usize + step);
        // SAFETY: the caller's promise; addresses are aligned to the access, reads need not be.
        unsafe {
            if access.element == 4 && !access.wide {
                if mask == u32::MAX {
                    for lane in 0..LANES {
                        u32::set(file, slot, lane, at(lane).cast::<u32>().read_unaligned());
                    }
                } else {
                    for lane in lanes(mask) {
                        u32::set(file, slot, lane, at(lane).cast::<u32>().read_unaligned());
                    }
                }
                continue;
            }
            for lane in lanes(mask) {
                let place = at(lane);
                let value = match (access.element, access.signed) {
                    (1, false) => u64::from(place.read()),
                    (1, true) => place.cast::<i8>().read() as i64 as u64,
                    (2, false) => u64::from(place.cast::<u16>().read_unaligned()),
                    (2, true) => place.cast::<i16>().read_unaligned() as i64 as u64,
                    (4, false) => u64::from(place.cast::<u32>().read_unaligned()),
                    (4, true) => place.cast::<i32>().read_unaligned() as i64 as u64,
                    _ => place.cast::<u64>().read_unaligned(),
                };
                if access.wide {
                    u64::set(file, slot, lane, value);
                } else {
                    u32::set(file, slot, lane, value as u32);
                }
            }
        }
    }
}

/// Registers to memory.
///
/// # Safety
/// As `fetch`; the places may be written.
#[inline(always)]
unsafe fn put(file: File, access: &Access, origin: *mut u8, offsets: &[u64; LANES], mask: u32) {
    for element in 0..access.slots.len() {
        let step = element * access.element as usize;
        for lane in lanes(mask) {
            let place = origin.wrapping_add(offsets[lane] as usize + step);
            // SAFETY: the caller's promise.
            unsafe {
                let value = register(file, access, element, lane);
                match access.element {
                    1 => place.write(value as u8),
                    2 => place.cast::<u16>().write_unaligned(value as u16),
                    4 => place.cast::<u32>().write_unaligned(value as u32),
                    _ => place.cast::<u64>().write_unaligned(value),
                }
            }
        }
    }
}
