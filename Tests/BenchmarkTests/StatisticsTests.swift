import Testing

@testable import Benchmark

@Suite struct StatisticsTests {
  @Test func `an odd number of samples has its middle one, and quartiles between neighbours`() throws {
    let figure = try #require(Figure([5, 1, 3, 2, 4]))
    #expect(figure.median == 3 && figure.lowest == 1 && figure.highest == 5)
    #expect(figure.lower_quartile == 2 && figure.upper_quartile == 4 && figure.samples == 5)
  }

  @Test func `an even number has what lies between the two in the middle`() throws {
    let figure = try #require(Figure([10, 40, 20, 30]))
    // A quarter of the way from the first place to the last is place 0.75: three quarters from 10 to 20.
    #expect(figure.median == 25 && figure.lower_quartile == 17.5 && figure.upper_quartile == 32.5)
  }

  @Test func `one sample is all its figures, and none is no figure`() throws {
    let figure = try #require(Figure([7]))
    #expect([figure.median, figure.lowest, figure.highest, figure.lower_quartile, figure.upper_quartile] == [7, 7, 7, 7, 7])
    #expect(Figure([]) == nil)
    #expect(Statistics.median([]) == nil)
  }

  @Test func `values that lie together are a class`() {
    #expect(Statistics.classes([96, 480, 101, 94, 510, 99], ratio: 1.5) == [94...101, 480...510])
    #expect(Statistics.classes([96, 130, 180], ratio: 1.5) == [96...180], "each is near the one below it")
    #expect(Statistics.classes([100, 150], ratio: 1.5) == [100...150], "just so far is not more")
    #expect(Statistics.classes([100, 151], ratio: 1.5) == [100...100, 151...151])
    #expect(Statistics.classes([], ratio: 1.5) == [])
  }

  @Test func `two values differ either way`() {
    #expect(Statistics.differ(100, 151, byMoreThan: 1.5) && Statistics.differ(151, 100, byMoreThan: 1.5))
    #expect(!Statistics.differ(100, 150, byMoreThan: 1.5))
  }
}
