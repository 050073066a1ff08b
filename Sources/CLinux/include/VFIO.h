// VFIO and iommufd: ioctls whose structures Swift cannot name. <linux/vfio.h>, <linux/iommufd.h>.
//
// Unless said otherwise a call returns 0 or an errno. What is newer than the headers of this machine is spelt out in
// VFIO.c: a kernel that does not know it says ENOTTY.
#ifndef CLINUX_VFIO_H
#define CLINUX_VFIO_H

#include <stddef.h>
#include <stdint.h>

// Of interrupts, by index.
enum { SL_VFIO_MSIX = 2, SL_VFIO_ERROR = 3, SL_VFIO_REQUEST = 4 };
// Of regions, by index.
enum { SL_VFIO_CONFIG = 7 };
// Of a mapping.
enum { SL_DMA_READ = 1, SL_DMA_WRITE = 2 };

// Groups and containers, type 1 (version 2: what is unmapped is what was mapped).
int sl_vfio_container_check(int container, int *version, int *has_type1);
int sl_vfio_group_is_viable(int group, int *viable);
int sl_vfio_group_join(int group, int container);
int sl_vfio_container_begin(int container);
// A descriptor, or the negative of an errno.
int sl_vfio_group_device(int group, const char *address);
// struct vfio_iommu_type1_info and its capabilities, of which `room` bytes are written; `needed` is all there is.
int sl_vfio_container_info(int container, void *buffer, uint32_t room, uint32_t *needed);
int sl_vfio_map(int container, void *memory, uint64_t iova, uint64_t bytes, int access);
// `bytes` becomes what was unmapped.
int sl_vfio_unmap(int container, uint64_t iova, uint64_t *bytes);

// iommufd.
int sl_iommufd_bind(int device, int iommufd);
int sl_iommufd_ioas_alloc(int iommufd, uint32_t *ioas);
int sl_iommufd_attach(int device, uint32_t ioas);
int sl_iommufd_map(int iommufd, uint32_t ioas, void *memory, uint64_t iova, uint64_t bytes, int access);
// The same of a memfd's bytes from `start` on, wherever they are mapped. Without an access to allow it maps nothing: EINVAL
// from a kernel that knows it.
int sl_iommufd_map_file(int iommufd, uint32_t ioas, int file, uint64_t start, uint64_t iova, uint64_t bytes, int access);
int sl_iommufd_unmap(int iommufd, uint32_t ioas, uint64_t iova, uint64_t bytes);
// First and last address of each range, `room` ranges at most; `count` becomes how many there are.
int sl_iommufd_ranges(int iommufd, uint32_t ioas, uint64_t *ranges, uint32_t room, uint32_t *count);

// A device.
int sl_vfio_device_info(int device, int *can_reset, uint32_t *regions, uint32_t *interrupts);
// struct vfio_region_info and its capabilities, as above.
int sl_vfio_region_info(int device, uint32_t index, void *buffer, uint32_t room, uint32_t *needed);
int sl_vfio_interrupt_info(int device, uint32_t index, uint32_t *count);
// Vectors from `first` on signal eventfds; -1 for one that signals none.
int sl_vfio_interrupts_set(int device, uint32_t index, uint32_t first, uint32_t count, const int *events);
int sl_vfio_interrupts_disable(int device, uint32_t index);
int sl_vfio_reset(int device);

// RLIMIT_MEMLOCK of this process in bytes; UINT64_MAX without one. setrlimit(2).
uint64_t sl_memlock_limit(void);

#endif
