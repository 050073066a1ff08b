// The patterned frame: everything in it follows from its index and the MAC address it is for, so that a frame that was
// damaged, cut, mixed with another or delivered to the wrong VM is seen for what it is.
//
//   Ethernet   to the VM, from 02:00:00:00:00:01
//   IPv4       10.99.0.1 to 10.99.0.2, identification = the index's low 16 bits
//   UDP        port 1000 + index % 64 (so 64 flows) to port 7, checksum right
//   payload    the index (32 bits, network order), then bytes that follow from index and offset
#pragma once
#include <arpa/inet.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { flows = 64, smallest_frame = 60, largest_frame = 1514, index_at = 42, destination_port_at = 36 };

// Indices from here on are of short frames: traffic that lasts, without a file that is long.
static const uint32_t first_short = 1u << 28;

// Bytes of frame `i`, without frame check sequence. 37 and 1455 have no common factor: 1455 frames have each length once.
static inline size_t frame_length(uint32_t i) {
  return i >= first_short ? smallest_frame + i % 69 : smallest_frame + (uint64_t)i * 37 % (largest_frame - smallest_frame + 1);
}

static inline uint16_t internet_checksum(const uint8_t *bytes, size_t count, uint32_t sum) {
  for (size_t k = 0; k < count; k++) sum += k % 2 ? bytes[k] : (uint32_t)bytes[k] << 8;
  while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
  return (uint16_t)~sum;
}

static inline void put16(uint8_t *at, uint32_t value) { at[0] = (uint8_t)(value >> 8), at[1] = (uint8_t)value; }
static inline void put32(uint8_t *at, uint32_t value) { put16(at, value >> 16), put16(at + 2, value); }
static inline uint32_t get32(const uint8_t *at) {
  return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

// Writes frame `i` for `mac`; returns its length. `frame` has room for largest_frame bytes.
static inline size_t make_frame(uint8_t *frame, uint32_t i, const uint8_t mac[6]) {
  static const uint8_t source[6] = {2, 0, 0, 0, 0, 1}, addresses[8] = {10, 99, 0, 1, 10, 99, 0, 2};
  size_t length = frame_length(i);
  uint8_t *ip = frame + 14, *udp = ip + 20;
  memcpy(frame, mac, 6), memcpy(frame + 6, source, 6), put16(frame + 12, 0x0800);
  memset(ip, 0, 28);
  ip[0] = 0x45, ip[8] = 64, ip[9] = 17;
  put16(ip + 2, (uint32_t)length - 14), put16(ip + 4, i), memcpy(ip + 12, addresses, 8);
  put16(ip + 10, internet_checksum(ip, 20, 0));
  uint32_t udp_length = (uint32_t)length - 34;
  put16(udp, 1000 + i % flows), put16(udp + 2, 7), put16(udp + 4, udp_length);
  put32(udp + 8, i);
  // Far apart in the product, near in the frame: no two stretches of any two frames look alike.
  for (size_t k = index_at + 4; k < length; k++) frame[k] = (uint8_t)((i * 0x9e3779b1u + (uint32_t)k * 0x85ebca6bu) >> 24);
  uint32_t pseudo = 17 + udp_length;
  for (int k = 0; k < 8; k += 2) pseudo += (uint32_t)addresses[k] << 8 | addresses[k + 1];
  uint16_t sum = internet_checksum(udp, udp_length, pseudo);
  put16(udp + 6, sum ? sum : 0xffff);
  return length;
}

// Whether these bytes claim to be a patterned frame: UDP over IPv4 to port 7. What else a guest hears is not counted.
static inline int is_patterned(const uint8_t *frame, size_t length) {
  return length >= smallest_frame && frame[12] == 8 && frame[13] == 0 && frame[14] == 0x45 && frame[23] == 17 &&
         frame[destination_port_at] == 0 && frame[destination_port_at + 1] == 7;
}
