// The bytes of a crop in shared memory, in whole sectors.
//
// The device's memory moves sectors of 32 bytes. A crop starts at any byte: its rows are read from the sector that
// holds their first byte to the one that holds their last, 16 bytes a thread, and lie in shared memory at the same
// place in a sector. Where fewer than 32 bytes lie between a row's end and the next one's start (small images, nearly
// whole ones), there is no sector between them, and the rows are read as one run. Either way each sector that the crop
// touches is read once, and no other.
#pragma once

#include "augment/resample.cuh"

// Kept in shared memory, as a Filter.
struct Stage {
    const u8 *crop; // its first byte
    const u8 *begin, *end; // of the buffer of all images
    u32 stride;     // bytes from row to row, in memory
    u32 pitch;      // and in shared memory: the same modulo a sector
    u32 span;       // bytes of a row

    // The image begins at `offset`, with `row` bytes a row; rectangle: top, left, height, width of the crop in pixels.
    __device__ __forceinline__ void prepare(const u8 *buffer, u64 bytes, u64 offset, u32 row, const u32 (&rectangle)[4],
                                            u32 channels) {
        begin = buffer, end = buffer + bytes;
        crop = buffer + offset + u64(rectangle[0]) * row + rectangle[1] * channels;
        stride = row, span = rectangle[3] * channels;
        const u32 gap = stride - span;
        // 31 bytes or more between rows keep their sectors apart.
        pitch = gap < SECTOR ? stride : span + SECTOR - 1 + (gap - (SECTOR - 1)) % SECTOR;
    }

    // A strip of so many floats, rounded up to where bytes may follow.
    static __device__ __forceinline__ u32 behind(u32 values) { return (values + 3) / 4 * 4; }

    // How many rows of the resized crop fit `floats` with the bytes that they are made of; at most all.
    __device__ __forceinline__ u32 rows(const Filter &filter, u32 height, u32 floats) const {
        const double room = 4.0 * floats - 16.0 - 2.0 * SECTOR, row = 4.0 * span;
        // All bytes of the crop; or those that n rows see, at most 2 + bound() + scale (n - 1) rows of bytes.
        const double whole = room - double(filter.input) * pitch;
        const double part = room - (2.0 + filter.bound()) * pitch;
        const double most = fmax(whole / row, part / (row + filter.scale * pitch));
        return most < 1.0 ? 0 : most < height ? u32(most) : height;
    }

    // Where byte 0 of row `first` is, from where load() puts the row.
    __device__ __forceinline__ u32 phase(u32 first) const {
        return u32(reinterpret_cast<u64>(crop) + u64(first) * stride) % SECTOR;
    }

    // Rows first .. first + count of the crop to `to`. Sectors that the buffer ends in are read as far as they are in it.
    __device__ __forceinline__ void load(u8 *to, u32 first, u32 count) const {
        const bool run = pitch == stride;
        const u32 runs = run ? 1 : count, length = run ? (count - 1) * stride + span : span;
        const u8 *start = crop + u64(first) * stride;
        const u32 before = phase(first);
        constexpr u32 UNIT = 16;
#pragma unroll 1
        for (Walk at((length + 2 * SECTOR - 2) / SECTOR * (SECTOR / UNIT)); at.row < runs; at.next()) {
            // A row's first sector, in memory and in shared memory.
            const u8 *row = start + u64(at.row) * stride;
            const u32 skip = u32(reinterpret_cast<u64>(row)) % SECTOR;
            if (at.column * UNIT >= (skip + length + SECTOR - 1) / SECTOR * SECTOR) continue;
            const u8 *from = row - skip + at.column * UNIT;
            u8 *target = to + (before + at.row * pitch - skip) + at.column * UNIT;
            if (from >= begin && from + UNIT <= end) {
                *reinterpret_cast<uint4 *>(target) = *reinterpret_cast<const uint4 *>(from);
            } else {
#pragma unroll 1
                for (u32 i = 0; i < UNIT; i++)
                    if (from + i >= begin && from + i < end) target[i] = from[i];
            }
        }
    }

    static constexpr u32 SECTOR = 32; // bytes
};
