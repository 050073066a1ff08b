import Control
import Foundation

/// Two VMs: one at work with a bounce, a drop and everything that can be odd; one that nobody has connected to.
public func statusFixture() -> StatusReport { decoded(statusText) }

public func injectFixture(file: String = "/tmp/t.pcap", interrupted: String? = nil) -> InjectReport {
  var report: InjectReport = decoded(
    """
    {"schema":1,"file":"","loops":2,"frames":{"sent":1536,"replicated":4,"delivered":1530,"host":0,"dropped":10},
     "bytes_sent":546048,"dropped_by":{"no_buffers":7,"no_route":3},"delivered":{"web":1000,"db":530},"elapsed_s":0.5}
    """)
  (report.file, report.interrupted) = (file, interrupted)
  return report
}

private func decoded<T: Decodable>(_ text: String) -> T {
  do { return try JSONDecoder().decode(T.self, from: Data(text.utf8)) } catch { fatalError("the fixture is wrong: \(error)") }
}

private let statusText = """
  {"schema":1,"version":"0.1.0","pid":4711,"uptime_s":3725.5,
   "nic":{"kind":"sim","link_up":true,"megabits":10000,"mtu":1500,"iommu_faults":0,"iommu_maps":6,"unmap_failures":0,"wire":"tap tap0",
          "received":{"frames":1000000,"bytes":355000000},"sent":{"frames":2000,"bytes":132000},"switched":12,
          "replicated":4,"dropped_by":{"no_route":3},"overruns":0},
   "workers":[{"cpu":1,"numa_node":0,"turns":123456,"sleeps":78,"datapath_s":1.5,"model_s":0.25},{"turns":5,"sleeps":4,"datapath_s":0,"model_s":0}],
   "vm_order":["web","db"],
   "vms":{
    "web":{"socket":"/run/sluice/web.sock","connection":"connected","peer_pid":812,"peer_uid":64055,"connections":3,
      "features":["VERSION_1","MRG_RXBUF","EVENT_IDX","RING_PACKED","MQ"],"protocol_features":["MQ","REPLY_ACK","CONFIGURE_MEM_SLOTS"],
      "mac":"02:00:00:00:00:01","vlan":100,"mtu":1500,"memory_regions":2,"memory_bytes":536870912,"numa_node":0,"worker":0,
      "logging":true,"dirty_pages":1234,"quiesces":{"count":6,"total_s":0.0012,"longest_s":0.00075},"containments":1,"last_violation":"ring 2: the available index ran ahead",
      "work":{"worker_s":1.25,"longest_s":0.00006,"deferrals":1200,"cut_polls":34,"notifier_signals":5,"message_pauses":1},
      "rings":[
       {"index":0,"direction":"receive","state":"running","format":"packed","size":256,"outstanding":255,"signals":9000,"suppressed_signals":70,"doorbells":31250},
       {"index":1,"direction":"transmit","state":"running","format":"packed","size":256,"outstanding":0,"signals":12,"suppressed_signals":3,"doorbells":2000},
       {"index":2,"direction":"receive","state":"failed","format":"split","size":1024,"reason":"the available index ran ahead","outstanding":0,"signals":0,"suppressed_signals":0,"doorbells":0},
       {"index":3,"direction":"transmit","state":"stopped","outstanding":0,"signals":0,"suppressed_signals":0,"doorbells":0}],
      "receive":{"lent":{"frames":999000,"bytes":354000000},"bounced":{"frames":950,"bytes":950000},
        "bounced_by":{"too_small":900,"scattered":50},"dropped_by":{"no_buffers":47}},
      "transmit":{"lent":{"frames":1990,"bytes":131000},"bounced":{"frames":10,"bytes":1000},"bounced_by":{"scattered":10},"dropped_by":{}}},
    "db":{"socket":"/run/sluice/db.sock","connection":"listening","connections":0,"features":[],"protocol_features":[],
      "mac":"02:00:00:00:00:02","mtu":1500,"memory_regions":0,"memory_bytes":0,"worker":1,"logging":false,"dirty_pages":0,
      "quiesces":{"count":0,"total_s":0,"longest_s":0},"contained":"ring 1: the NIC does not stop its queue","containments":2,"rings":[],
      "receive":{"lent":{"frames":0,"bytes":0},"bounced":{"frames":0,"bytes":0},"bounced_by":{},"dropped_by":{}},
      "transmit":{"lent":{"frames":0,"bytes":0},"bounced":{"frames":0,"bytes":0},"bounced_by":{},"dropped_by":{}}}},
   "laws":[{"name":"received + replicated = delivered + dropped","left":1000004,"right":1000000,"in_flight":4,"holds":true}]}
  """
