internal import CYaml

/// What a configuration file may not contain, found in its events, before the file is composed into nodes.
///
/// Composing hashes keys to find those that are given twice. A key that is a mapping of aliases of mappings of aliases is
/// hashed in time that grows exponentially with the file; and an alias saves nothing in this configuration.
///
/// `@safe`: the parser lives for one call, reads the text's bytes while they are pinned, and each event is deleted once.
@safe enum YAMLStructure {
  /// Returns the first alias or the first key that is not a scalar; nil if there is none before the text's end, or before its
  /// first syntax error, which composing reports.
  static func problem(in text: String) -> FileProblem? {
    var text = text
    return text.withUTF8 { bytes in
      var parser = unsafe yaml_parser_t()
      guard unsafe yaml_parser_initialize(&parser) == 1 else { return nil }
      defer { unsafe yaml_parser_delete(&parser) }
      unsafe yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING)
      unsafe yaml_parser_set_input_string(&parser, bytes.baseAddress, bytes.count)
      return unsafe walk(&parser)
    }
  }

  private static func walk(_ parser: UnsafeMutablePointer<yaml_parser_t>) -> FileProblem? {
    // Of each collection that is open: whether it is a mapping whose next node is a key.
    var open: [(isMapping: Bool, isKeyNext: Bool)] = []
    while true {
      var event = unsafe yaml_event_t()
      guard unsafe yaml_parser_parse(parser, &event) == 1 else { return nil }
      defer { unsafe yaml_event_delete(&event) }
      let kind = unsafe event.type
      let mark = unsafe event.start_mark
      func problem(_ reason: String) -> FileProblem { FileProblem(Int(mark.line) + 1, Int(mark.column) + 1, "", reason) }
      let isKey = open.last.map { $0.isMapping && $0.isKeyNext } ?? false
      switch kind {
      case YAML_STREAM_END_EVENT: return nil
      case YAML_ALIAS_EVENT: return problem("aliases are not accepted; write the value out")
      case YAML_MAPPING_START_EVENT, YAML_SEQUENCE_START_EVENT:
        if isKey { return problem("a key must be a word") }
        open.append((kind == YAML_MAPPING_START_EVENT, true))
        continue
      case YAML_MAPPING_END_EVENT, YAML_SEQUENCE_END_EVENT: _ = open.popLast()
      case YAML_SCALAR_EVENT: break
      default: continue
      }
      // A node is complete: in a mapping, keys and values take turns.
      if let last = open.indices.last { open[last].isKeyNext.toggle() }
    }
  }
}
