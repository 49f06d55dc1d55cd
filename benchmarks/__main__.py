"""``python -m benchmarks``: every benchmark in turn."""

from benchmarks import end_to_end

end_to_end.main()
