// VFIO and iommufd. What headers of Linux 6.1 do not have is laid out here as newer ones have it.
#include "VFIO.h"

#include <errno.h>
#include <linux/vfio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>

static int done(int result) { return result < 0 ? errno : 0; }

// --- type 1 ---

int sl_vfio_container_check(int container, int *version, int *has_type1) {
  *version = ioctl(container, VFIO_GET_API_VERSION);
  if (*version < 0) return errno;
  int answer = ioctl(container, VFIO_CHECK_EXTENSION, VFIO_TYPE1v2_IOMMU);
  if (answer < 0) return errno;
  *has_type1 = answer;
  return 0;
}
int sl_vfio_group_is_viable(int group, int *viable) {
  struct vfio_group_status status = {.argsz = sizeof status};
  if (ioctl(group, VFIO_GROUP_GET_STATUS, &status) < 0) return errno;
  *viable = (status.flags & VFIO_GROUP_FLAGS_VIABLE) != 0;
  return 0;
}
int sl_vfio_group_join(int group, int container) { return done(ioctl(group, VFIO_GROUP_SET_CONTAINER, &container)); }
int sl_vfio_container_begin(int container) { return done(ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU)); }
int sl_vfio_group_device(int group, const char *address) {
  int device = ioctl(group, VFIO_GROUP_GET_DEVICE_FD, address);
  return device < 0 ? -errno : device;
}
int sl_vfio_container_info(int container, void *buffer, uint32_t room, uint32_t *needed) {
  if (room < sizeof(struct vfio_iommu_type1_info)) return EINVAL;
  memset(buffer, 0, room);
  struct vfio_iommu_type1_info *info = buffer;
  info->argsz = room;
  if (ioctl(container, VFIO_IOMMU_GET_INFO, info) < 0) return errno;
  *needed = info->argsz;
  return 0;
}
int sl_vfio_map(int container, void *memory, uint64_t iova, uint64_t bytes, int access) {
  struct vfio_iommu_type1_dma_map map = {.argsz = sizeof map, .vaddr = (uintptr_t)memory, .iova = iova, .size = bytes};
  if (access & SL_DMA_READ) map.flags |= VFIO_DMA_MAP_FLAG_READ;
  if (access & SL_DMA_WRITE) map.flags |= VFIO_DMA_MAP_FLAG_WRITE;
  return done(ioctl(container, VFIO_IOMMU_MAP_DMA, &map));
}
int sl_vfio_unmap(int container, uint64_t iova, uint64_t *bytes) {
  struct vfio_iommu_type1_dma_unmap unmap = {.argsz = sizeof unmap, .iova = iova, .size = *bytes};
  if (ioctl(container, VFIO_IOMMU_UNMAP_DMA, &unmap) < 0) return errno;
  *bytes = unmap.size;
  return 0;
}

// --- iommufd: <linux/iommufd.h>, and what Linux 6.6 has added to <linux/vfio.h> ---

struct bind_iommufd { uint32_t argsz, flags; int32_t iommufd; uint32_t out_devid; };
struct attach_pt { uint32_t argsz, flags, pt_id; };
struct ioas_alloc { uint32_t size, flags, out_ioas_id; };
struct iova_range { uint64_t start, last; };
struct ioas_ranges { uint32_t size, ioas_id, num_iovas, reserved; uint64_t allowed_iovas, out_iova_alignment; };
struct ioas_map { uint32_t size, flags, ioas_id, reserved; uint64_t user_va, length, iova; };
struct ioas_map_file { uint32_t size, flags, ioas_id; int32_t fd; uint64_t start, length, iova; };
struct ioas_unmap { uint32_t size, ioas_id; uint64_t iova, length; };
enum { map_fixed = 1, map_writeable = 2, map_readable = 4 };
#define BIND_IOMMUFD _IO(VFIO_TYPE, VFIO_BASE + 18)
#define ATTACH_PT _IO(VFIO_TYPE, VFIO_BASE + 19)
#define IOAS_ALLOC _IO(';', 0x81)
#define IOAS_RANGES _IO(';', 0x84)
#define IOAS_MAP _IO(';', 0x85)
#define IOAS_UNMAP _IO(';', 0x86)
#define IOAS_MAP_FILE _IO(';', 0x8f)

int sl_iommufd_bind(int device, int iommufd) {
  struct bind_iommufd bind = {.argsz = sizeof bind, .iommufd = iommufd};
  return done(ioctl(device, BIND_IOMMUFD, &bind));
}
int sl_iommufd_ioas_alloc(int iommufd, uint32_t *ioas) {
  struct ioas_alloc alloc = {.size = sizeof alloc};
  if (ioctl(iommufd, IOAS_ALLOC, &alloc) < 0) return errno;
  *ioas = alloc.out_ioas_id;
  return 0;
}
int sl_iommufd_attach(int device, uint32_t ioas) {
  struct attach_pt attach = {.argsz = sizeof attach, .pt_id = ioas};
  return done(ioctl(device, ATTACH_PT, &attach));
}
int sl_iommufd_map(int iommufd, uint32_t ioas, void *memory, uint64_t iova, uint64_t bytes, int access) {
  struct ioas_map map = {
    .size = sizeof map, .flags = map_fixed, .ioas_id = ioas, .user_va = (uintptr_t)memory, .length = bytes, .iova = iova};
  if (access & SL_DMA_READ) map.flags |= map_readable;
  if (access & SL_DMA_WRITE) map.flags |= map_writeable;
  return done(ioctl(iommufd, IOAS_MAP, &map));
}
int sl_iommufd_map_file(int iommufd, uint32_t ioas, int file, uint64_t start, uint64_t iova, uint64_t bytes, int access) {
  struct ioas_map_file map = {
    .size = sizeof map, .flags = map_fixed, .ioas_id = ioas, .fd = file, .start = start, .length = bytes, .iova = iova};
  if (access & SL_DMA_READ) map.flags |= map_readable;
  if (access & SL_DMA_WRITE) map.flags |= map_writeable;
  return done(ioctl(iommufd, IOAS_MAP_FILE, &map));
}
int sl_iommufd_unmap(int iommufd, uint32_t ioas, uint64_t iova, uint64_t bytes) {
  struct ioas_unmap unmap = {.size = sizeof unmap, .ioas_id = ioas, .iova = iova, .length = bytes};
  return done(ioctl(iommufd, IOAS_UNMAP, &unmap));
}
int sl_iommufd_ranges(int iommufd, uint32_t ioas, uint64_t *ranges, uint32_t room, uint32_t *count) {
  struct ioas_ranges request = {.size = sizeof request, .ioas_id = ioas, .num_iovas = room, .allowed_iovas = (uintptr_t)ranges};
  int result = done(ioctl(iommufd, IOAS_RANGES, &request));
  *count = request.num_iovas;
  return result;
}

// --- devices ---

int sl_vfio_device_info(int device, int *can_reset, uint32_t *regions, uint32_t *interrupts) {
  struct vfio_device_info info = {.argsz = sizeof info};
  if (ioctl(device, VFIO_DEVICE_GET_INFO, &info) < 0) return errno;
  *can_reset = (info.flags & VFIO_DEVICE_FLAGS_RESET) != 0;
  *regions = info.num_regions;
  *interrupts = info.num_irqs;
  return 0;
}
int sl_vfio_region_info(int device, uint32_t index, void *buffer, uint32_t room, uint32_t *needed) {
  if (room < sizeof(struct vfio_region_info)) return EINVAL;
  memset(buffer, 0, room);
  struct vfio_region_info *info = buffer;
  info->argsz = room;
  info->index = index;
  if (ioctl(device, VFIO_DEVICE_GET_REGION_INFO, info) < 0) return errno;
  *needed = info->argsz;
  return 0;
}
int sl_vfio_interrupt_info(int device, uint32_t index, uint32_t *count) {
  struct vfio_irq_info info = {.argsz = sizeof info, .index = index};
  if (ioctl(device, VFIO_DEVICE_GET_IRQ_INFO, &info) < 0) return errno;
  *count = info.count;
  return 0;
}
int sl_vfio_interrupts_set(int device, uint32_t index, uint32_t first, uint32_t count, const int *events) {
  size_t bytes = sizeof(struct vfio_irq_set) + count * sizeof(int);
  struct vfio_irq_set *set = calloc(1, bytes);
  if (!set) return ENOMEM;
  *set = (struct vfio_irq_set){
    .argsz = (uint32_t)bytes, .flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER, .index = index, .start = first, .count = count};
  memcpy(set->data, events, count * sizeof(int));
  int result = done(ioctl(device, VFIO_DEVICE_SET_IRQS, set));
  free(set);
  return result;
}
int sl_vfio_interrupts_disable(int device, uint32_t index) {
  struct vfio_irq_set set = {.argsz = sizeof set, .flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER, .index = index};
  return done(ioctl(device, VFIO_DEVICE_SET_IRQS, &set));
}
int sl_vfio_reset(int device) { return done(ioctl(device, VFIO_DEVICE_RESET)); }

uint64_t sl_memlock_limit(void) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_MEMLOCK, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return UINT64_MAX;
  return limit.rlim_cur;
}
