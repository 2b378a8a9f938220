"""differad-edge as a managed ROS 2 node: images in, one result for each, in order.

    ros2 run differad_edge_ros inspector --ros-args -p product:=gasket-a -r image:=/camera/image_raw

Only `node`, `ports`, `messages` and `front_ends` import ROS: what a part goes through can be tested without it.
"""
